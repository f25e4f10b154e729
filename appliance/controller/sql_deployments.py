"""Deployments and wipe orders in their tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, RowMapping, insert, select, update

from appliance.controller import sql_lists, sql_records
from appliance.controller.database import Database
from appliance.controller.store import Deployment, Wipe
from appliance.controller.tables import deployments, wipes
from appliance.controller.upsert import upsert
from appliance.errors import RowRefusedError


class SqlDeployments:
    """Implements store.Deployments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def start(self, deployment: Deployment, *, now_ms: int) -> bool:
        with self._database.writing(notify=True) as connection:
            before = _get(connection, deployment.deployment)
            runs = before is not None and before.stopped_ms is None
            if before is not None and runs:
                deployment = replace(deployment, started_ms=before.started_ms)
                if deployment == before:
                    return False
            columns = {name: getattr(deployment, name) for name in deployment.__dataclass_fields__}
            columns["nodes"] = json.dumps(deployment.nodes)
            upsert(connection, deployments, [columns])
            about = {**columns, "nodes": deployment.nodes}
            del about["stopped_ms"], about["ended_by"]  # it runs
            kind = "deployment-changed" if runs else "deployment-started"
            sql_records.write(connection, kind, now_ms=now_ms, about=about)
        return True

    def stop(self, deployment: str, *, ended_by: str, now_ms: int) -> bool:
        with self._database.writing(notify=True) as connection:
            before = _get(connection, deployment)
            if before is None:
                raise RowRefusedError(f"no deployment {deployment}")
            if before.stopped_ms is not None:
                return False
            connection.execute(
                update(deployments)
                .where(deployments.c.deployment == deployment)
                .values(stopped_ms=now_ms, ended_by=ended_by)
            )
            about = {"deployment": deployment, "ended_by": ended_by}
            sql_records.write(connection, "deployment-ended", now_ms=now_ms, about=about)
            sql_lists.destroy(connection, deployment, now_ms=now_ms)
        return True

    def all(self) -> tuple[Deployment, ...]:
        asked = select(deployments).order_by(deployments.c.started_ms, deployments.c.deployment)
        with self._database.reading() as connection:
            return tuple(_row(row) for row in connection.execute(asked).mappings())

    def order_wipe(self, nodes: Sequence[str], *, now_ms: int) -> None:
        with self._database.writing(notify=True) as connection:
            open_already = set(
                connection.execute(select(wipes.c.node).where(wipes.c.done_ms.is_(None))).scalars()
            )
            for node in sorted(set(nodes) - open_already):
                connection.execute(insert(wipes).values(node=node, ordered_ms=now_ms))
                sql_records.write(connection, "wipe-ordered", now_ms=now_ms, about={"node": node})

    def wiped(self, node: str, *, now_ms: int) -> None:
        with self._database.writing(notify=True) as connection:
            done = connection.execute(
                update(wipes)
                .where((wipes.c.node == node) & wipes.c.done_ms.is_(None))
                .values(done_ms=now_ms)
            )
            if done.rowcount:
                sql_records.write(connection, "wiped", now_ms=now_ms, about={"node": node})

    def wipes(self) -> tuple[Wipe, ...]:
        asked = select(wipes).order_by(wipes.c.number)
        with self._database.reading() as connection:
            return tuple(Wipe(**row) for row in connection.execute(asked).mappings())


def _get(connection: Connection, deployment: str) -> Deployment | None:
    asked = select(deployments).where(deployments.c.deployment == deployment).with_for_update()
    row = connection.execute(asked).mappings().first()
    return None if row is None else _row(row)


def _row(row: RowMapping) -> Deployment:
    return Deployment(**{**row, "nodes": tuple(json.loads(row["nodes"]))})
