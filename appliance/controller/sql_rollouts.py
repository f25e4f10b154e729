"""Roll-outs of updates in their tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from appliance.controller import sql_records
from appliance.controller.database import Database
from appliance.controller.rollout import FAILED, Rollout, Runs, State, Step, Taken, too_many
from appliance.controller.tables import meta, rollouts, running, upgrades
from appliance.controller.upsert import upsert
from appliance.errors import RowRefusedError
from appliance.system import release

_TOLD = {
    Step.INSTALLED: "update-installed",
    Step.ROLLED_BACK: "update-rolled-back",
    Step.REFUSED: "update-refused",
}
"""What becomes of a node goes into the record; how it gets there does not."""


class SqlRollouts:
    """Implements rollout.Rollouts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def start(self, rollout: Rollout) -> None:
        with self._database.writing(notify=True) as connection:
            # Two who start at the same time do it one after the other.
            connection.execute(select(meta.c.value).with_for_update())
            other = _current(connection)
            if other is not None:
                raise RowRefusedError(f"roll-out {other.rollout} has not been stopped")
            connection.execute(insert(rollouts).values(**_columns(rollout)))
            about = {
                "rollout": rollout.rollout,
                "version": release.shown(rollout.version),
                "sha256": rollout.sha256.hex(),
                "stages": rollout.stages,
                "stage": rollout.stage,
                "stop_after": rollout.stop_after,
                "while_watching": rollout.while_watching,
            }
            _tell(connection, "update-started", rollout.started_ms, about)

    def all(self) -> tuple[Rollout, ...]:
        asked = select(rollouts).order_by(rollouts.c.started_ms, rollouts.c.rollout)
        with self._database.reading() as connection:
            return tuple(_row(row) for row in connection.execute(asked).mappings())

    def current(self) -> Rollout | None:
        with self._database.reading() as connection:
            return _current(connection)

    def go_on(self, rollout: str, stage: int, *, now_ms: int) -> None:
        with self._database.writing(notify=True) as connection:
            before = _open(connection, rollout)
            if not before.stage < stage < len(before.stages):
                raise RowRefusedError(f"{rollout} is in stage {before.stage + 1} already")
            _change(connection, rollout, stage=stage)
            about = {"rollout": rollout, "stage": stage, "share": before.stages[stage]}
            _tell(connection, "update-stage", now_ms, about)

    def pause(self, rollout: str, why: str, *, now_ms: int) -> bool:
        with self._database.writing(notify=True) as connection:
            if _open(connection, rollout).state is State.PAUSED:
                return False
            _pause(connection, rollout, why, now_ms)
        return True

    def resume(self, rollout: str, *, now_ms: int) -> bool:
        with self._database.writing(notify=True) as connection:
            if _open(connection, rollout).state is not State.PAUSED:
                return False
            failed = _failed(connection, rollout)
            _change(connection, rollout, state=State.RUNNING.value, why="", tolerated=failed)
            about = {"rollout": rollout, "tolerated": failed}
            _tell(connection, "update-resumed", now_ms, about)
        return True

    def stop(self, rollout: str, why: str, *, now_ms: int) -> bool:
        with self._database.writing(notify=True) as connection:
            if _get(connection, rollout).state is State.STOPPED:
                return False
            _change(connection, rollout, state=State.STOPPED.value, why=why, ended_ms=now_ms)
            _tell(connection, "update-stopped", now_ms, {"rollout": rollout, "why": why})
        return True

    def heard(self, rollout: str, taken: Sequence[Taken], *, now_ms: int) -> str:
        if not taken:
            return ""
        with self._database.writing() as connection:
            order = _get(connection, rollout)  # locked: two controllers count one after the other
            before = _steps(connection, rollout)
            rows = sorted(taken, key=lambda one: one.node)
            upsert(connection, upgrades, [_taken_columns(rollout, one) for one in rows])
            for one in rows:
                if one.step in _TOLD and before.get(one.node) is not one.step:
                    about = {"rollout": rollout, "node": one.node, "why": one.why}
                    _tell(connection, _TOLD[one.step], now_ms, about)
            why = too_many(order, _failed(connection, rollout))
            if why:
                _pause(connection, rollout, why, now_ms)
                connection.execute(
                    update(meta).where(meta.c.key == "revision").values(value=meta.c.value + 1)
                )
        return why

    def taken(self, rollout: str, node: str | None = None) -> tuple[Taken, ...]:
        asked = select(upgrades).where(upgrades.c.rollout == rollout).order_by(upgrades.c.node)
        if node is not None:
            asked = asked.where(upgrades.c.node == node)
        with self._database.reading() as connection:
            return tuple(_taken_row(row) for row in connection.execute(asked).mappings())

    def note_runs(self, runs: Sequence[Runs]) -> None:
        if runs:
            rows = [
                {"node": one.node, "version": release.shown(one.version), "at_ms": one.at_ms}
                for one in sorted(runs, key=lambda one: one.node)
            ]
            with self._database.writing() as connection:
                upsert(connection, running, rows)

    def runs(self) -> Mapping[str, Runs]:
        with self._database.reading() as connection:
            rows = connection.execute(select(running).order_by(running.c.node)).mappings()
            return {
                row["node"]: Runs(row["node"], release.parse(row["version"]), row["at_ms"])
                for row in rows
            }


def _current(connection: Connection) -> Rollout | None:
    row = connection.execute(
        select(rollouts).where(rollouts.c.state != State.STOPPED.value)
    ).mappings()
    found = row.first()
    return None if found is None else _row(found)


def _get(connection: Connection, rollout: str) -> Rollout:
    asked = select(rollouts).where(rollouts.c.rollout == rollout).with_for_update()
    row = connection.execute(asked).mappings().first()
    if row is None:
        raise RowRefusedError(f"no roll-out {rollout}")
    return _row(row)


def _open(connection: Connection, rollout: str) -> Rollout:
    found = _get(connection, rollout)
    if found.state is State.STOPPED:
        raise RowRefusedError(f"roll-out {rollout} was stopped, which is for good")
    return found


def _change(connection: Connection, rollout: str, **columns: object) -> None:
    connection.execute(update(rollouts).where(rollouts.c.rollout == rollout).values(**columns))


def _pause(connection: Connection, rollout: str, why: str, now_ms: int) -> None:
    _change(connection, rollout, state=State.PAUSED.value, why=why)
    _tell(connection, "update-paused", now_ms, {"rollout": rollout, "why": why})


def _tell(connection: Connection, kind: str, now_ms: int, about: Mapping[str, object]) -> None:
    sql_records.write(connection, kind, now_ms=now_ms, about=about)


def _steps(connection: Connection, rollout: str) -> dict[str, Step]:
    asked = select(upgrades.c.node, upgrades.c.step).where(upgrades.c.rollout == rollout)
    return {node: Step(step) for node, step in connection.execute(asked)}


def _failed(connection: Connection, rollout: str) -> int:
    counted = select(func.count()).where(
        (upgrades.c.rollout == rollout) & upgrades.c.step.in_([step.value for step in FAILED])
    )
    return int(connection.execute(counted).scalar_one())


def _columns(rollout: Rollout) -> dict[str, Any]:
    columns = {name: getattr(rollout, name) for name in rollout.__dataclass_fields__}
    return columns | {
        "version": release.shown(rollout.version),
        "stages": json.dumps(rollout.stages),
        "while_watching": int(rollout.while_watching),
        "state": rollout.state.value,
    }


def _row(row: RowMapping) -> Rollout:
    columns = dict(row) | {
        "version": release.parse(row["version"]),
        "stages": tuple(json.loads(row["stages"])),
        "while_watching": bool(row["while_watching"]),
        "state": State(row["state"]),
    }
    return Rollout(**columns)


def _taken_columns(rollout: str, one: Taken) -> dict[str, Any]:
    columns = {name: getattr(one, name) for name in one.__dataclass_fields__}
    return columns | {"rollout": rollout, "step": one.step.value}


def _taken_row(row: RowMapping) -> Taken:
    columns = {name: row[name] for name in Taken.__dataclass_fields__}
    return Taken(**columns | {"step": Step(row["step"])})
