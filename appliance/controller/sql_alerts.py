"""Alerts in their table: each once, with what is missing between them and what does not agree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import groupby

import msgspec
from sqlalchemy import Connection, Row, Select, func, select, tuple_

from appliance.controller import sql_records
from appliance.controller.database import Database
from appliance.controller.store import Arrival, Conflict, Gap, KeptAlert, Receipt, Stored
from appliance.controller.tables import alerts, conflicts
from appliance.controller.upsert import inserting
from appliance.wire import Alert

_Key = tuple[str, bytes, int]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Alert)
_KEY = (alerts.c.node, alerts.c.boot, alerts.c.sequence)
_KEYS_PER_QUERY = 200


class SqlAlerts:
    """Implements store.Alerts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, arrivals: Sequence[Arrival], *, now_ms: int) -> tuple[Receipt, ...]:
        if not arrivals:
            return ()
        first = {_key(arrival): arrival for arrival in reversed(arrivals)}
        with self._database.writing() as connection:
            new = _insert(connection, list(first.values()), now_ms)
            kept = _sealed(connection, [key for key in first if key not in new])
            kept |= {key: first[key].sealed for key in new}
            gaps = _gaps_before(connection, new)
            for gap in gaps.values():
                _record_loss(connection, gap, now_ms)
            receipts = []
            for arrival in arrivals:
                key = _key(arrival)
                if kept[key] != arrival.sealed:
                    _keep_conflict(connection, arrival, now_ms)
                    receipts.append(Receipt(Stored.CONFLICT))
                elif key in new and first[key] is arrival:
                    receipts.append(Receipt(Stored.NEW, gaps.get(key)))
                else:
                    receipts.append(Receipt(Stored.DUPLICATE))
        return tuple(receipts)

    def since(self, received_ms: int, *, most: int) -> tuple[KeptAlert, ...]:
        asked = select(alerts).where(alerts.c.received_ms >= received_ms)
        return self._kept(asked.order_by(alerts.c.received_ms, *_KEY).limit(most))

    def newest(self, most: int) -> tuple[KeptAlert, ...]:
        order = (alerts.c.received_ms.desc(), *(column.desc() for column in _KEY))
        return self._kept(select(alerts).order_by(*order).limit(most))[::-1]

    def gaps(self) -> tuple[Gap, ...]:
        before = func.lag(alerts.c.sequence, 1, 0).over(
            partition_by=(alerts.c.node, alerts.c.boot), order_by=alerts.c.sequence
        )
        stepped = select(*_KEY, before.label("before")).subquery()
        asked = (
            select(stepped)
            .where(stepped.c.sequence - stepped.c.before > 1)
            .order_by(stepped.c.node, stepped.c.boot, stepped.c.sequence)
        )
        with self._database.reading() as connection:
            return tuple(
                Gap(node, boot, before + 1, sequence - 1)
                for node, boot, sequence, before in connection.execute(asked)
            )

    def conflicts(self) -> tuple[Conflict, ...]:
        columns = (conflicts.c.node, conflicts.c.boot, conflicts.c.sequence)
        asked = select(*columns, conflicts.c.received_ms).order_by(*columns)
        with self._database.reading() as connection:
            return tuple(Conflict(*row) for row in connection.execute(asked))

    def counts(self) -> tuple[int, int]:
        asked = select(func.count(), func.count(alerts.c.alert)).select_from(alerts)
        with self._database.reading() as connection:
            kept, opened = connection.execute(asked).one()
        return kept, kept - opened

    def _kept(self, asked: Select[tuple[object, ...]]) -> tuple[KeptAlert, ...]:
        with self._database.reading() as connection:
            return tuple(_row(row) for row in connection.execute(asked))


def _key(arrival: Arrival) -> _Key:
    return arrival.node, arrival.boot, arrival.sequence


def _insert(connection: Connection, arrivals: Sequence[Arrival], now_ms: int) -> set[_Key]:
    """Insert those whose number is not taken; their keys."""
    rows = [
        {
            "node": arrival.node,
            "boot": arrival.boot,
            "sequence": arrival.sequence,
            "received_ms": now_ms,
            "sealed": arrival.sealed,
            "alert": None if arrival.alert is None else _encoder.encode(arrival.alert),
            "fault": arrival.fault,
        }
        # In order, so that two controllers that write the same rows never wait for each other.
        for arrival in sorted(arrivals, key=_key)
    ]
    statement = inserting(connection, alerts).on_conflict_do_nothing().returning(*_KEY)
    return {(node, boot, number) for node, boot, number in connection.execute(statement, rows)}


def _sealed(connection: Connection, keys: Sequence[_Key]) -> dict[_Key, bytes]:
    """What is kept under these numbers."""
    found: dict[_Key, bytes] = {}
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        asked = select(*_KEY, alerts.c.sealed).where(
            tuple_(*_KEY).in_(keys[start : start + _KEYS_PER_QUERY])
        )
        for node, boot, number, sealed in connection.execute(asked):
            found[node, boot, number] = sealed
    return found


def _gaps_before(connection: Connection, new: set[_Key]) -> dict[_Key, Gap]:
    """By the key of a new alert: what is missing right before it.

    Only the first number of each unbroken run can have something missing before it.
    """
    starts = [key for key in sorted(new) if key[2] > 1 and (*key[:2], key[2] - 1) not in new]
    followed = _sealed(connection, [(*key[:2], key[2] - 1) for key in starts])
    gaps: dict[_Key, Gap] = {}
    for (node, boot), keys in groupby(starts, key=lambda key: key[:2]):
        for key in keys:
            if (node, boot, key[2] - 1) in followed:
                continue
            before = connection.execute(
                select(func.max(alerts.c.sequence)).where(
                    (alerts.c.node == node) & (alerts.c.boot == boot) & (alerts.c.sequence < key[2])
                )
            ).scalar_one()
            gaps[key] = Gap(node, boot, (before or 0) + 1, key[2] - 1)
    return gaps


def _record_loss(connection: Connection, gap: Gap, now_ms: int) -> None:
    about = {"node": gap.node, "boot": gap.boot.hex(), "first": gap.first, "last": gap.last}
    sql_records.write(connection, "loss", now_ms=now_ms, about=about)


def _keep_conflict(connection: Connection, arrival: Arrival, now_ms: int) -> None:
    """Keep the other bytes as evidence, once."""
    digest = hashlib.sha256(arrival.sealed).digest()
    statement = (
        inserting(connection, conflicts).on_conflict_do_nothing().returning(conflicts.c.node)
    )
    kept = connection.execute(
        statement,
        {
            "node": arrival.node,
            "boot": arrival.boot,
            "sequence": arrival.sequence,
            "digest": digest,
            "received_ms": now_ms,
            "sealed": arrival.sealed,
        },
    ).first()
    if kept is not None:
        about = {"node": arrival.node, "boot": arrival.boot.hex(), "sequence": arrival.sequence}
        sql_records.write(connection, "conflict", now_ms=now_ms, about=about)


def _row(row: Row[tuple[object, ...]]) -> KeptAlert:
    alert = None if row.alert is None else _decoder.decode(row.alert)
    arrival = Arrival(row.node, row.boot, row.sequence, row.sealed, alert, row.fault)
    return KeptAlert(arrival, row.received_ms)
