"""Nodes in their tables: invited, joined, quarantined, revoked; and what was last heard of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, insert, select, update

from appliance.controller import sql_records
from appliance.controller.database import Database
from appliance.controller.store import NodeRow, Seen, Status
from appliance.controller.tables import certificates, nodes, seen
from appliance.controller.upsert import upsert
from appliance.errors import RowRefusedError
from appliance.wire import Health

_health_encoder = msgspec.msgpack.Encoder()
_health_decoder = msgspec.msgpack.Decoder(Health)


class SqlNodes:
    """Implements store.Nodes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def invite(
        self, node: str, *, token_hash: bytes, expires_ms: int, now_ms: int, again: bool = False
    ) -> None:
        with self._database.writing(notify=True) as connection:
            status = _status(connection, node)
            if status is Status.REVOKED or not (again or status in {None, Status.INVITED}):
                raise RowRefusedError(f"node {node} is {status} already")
            columns = {
                "status": Status.INVITED.value,
                "reason": "",
                "token_hash": token_hash,
                "token_expires_ms": expires_ms,
                "join_digest": None,
                "watch_key": None,
            }
            upsert(connection, nodes, [{"node": node, **columns}])
            sql_records.write(connection, "node-invited", now_ms=now_ms, about={"node": node})

    def join(
        self, node: str, *, join_digest: bytes, watch_key: bytes, serial: int, now_ms: int
    ) -> None:
        with self._database.writing(notify=True) as connection:
            row = connection.execute(
                select(nodes.c.status, nodes.c.join_digest)
                .where(nodes.c.node == node)
                .with_for_update()
            ).first()
            if row is None or row.status not in {Status.INVITED, Status.JOINED}:
                raise RowRefusedError(f"node {node} is not invited")
            if row.join_digest not in {None, join_digest}:
                raise RowRefusedError(f"node {node}: its token was used by another request")
            connection.execute(
                update(nodes)
                .where(nodes.c.node == node)
                .values(status=Status.JOINED.value, join_digest=join_digest, watch_key=watch_key)
            )
            _certify(connection, node, serial, now_ms)
            sql_records.write(connection, "node-joined", now_ms=now_ms, about={"node": node})

    def certified(self, node: str, serial: int, *, now_ms: int) -> None:
        with self._database.writing() as connection:
            _certify(connection, node, serial, now_ms)

    def set_status(self, node: str, status: Status, reason: str, *, now_ms: int) -> None:
        with self._database.writing(notify=True) as connection:
            before = _status(connection, node)
            if before is None:
                raise RowRefusedError(f"no node {node}")
            if before is Status.REVOKED and status is not Status.REVOKED:
                raise RowRefusedError(f"node {node} was revoked, which is for ever")
            if before is status:
                return
            connection.execute(
                update(nodes)
                .where(nodes.c.node == node)
                .values(status=status.value, reason=reason, token_hash=None)
            )
            kind = "node-confirmed" if status is Status.JOINED else f"node-{status}"
            about = {"node": node, "reason": reason}
            sql_records.write(connection, kind, now_ms=now_ms, about=about)

    def heard(self, seen_now: Sequence[Seen]) -> None:
        if seen_now:
            with self._database.writing() as connection:
                upsert(
                    connection,
                    seen,
                    [_columns(one) for one in sorted(seen_now, key=lambda one: one.node)],
                )

    def get(self, node: str) -> NodeRow | None:
        rows = self._rows(node)
        return rows[0] if rows else None

    def all(self) -> tuple[NodeRow, ...]:
        return self._rows(None)

    def _rows(self, node: str | None) -> tuple[NodeRow, ...]:
        asked = select(nodes, *(c.label(f"seen_{c.name}") for c in seen.c)).outerjoin(
            seen, seen.c.node == nodes.c.node
        )
        issued = select(certificates.c.node, certificates.c.serial).order_by(
            certificates.c.issued_ms
        )
        if node is not None:
            asked = asked.where(nodes.c.node == node)
            issued = issued.where(certificates.c.node == node)
        serials: dict[str, list[int]] = defaultdict(list)
        with self._database.reading() as connection:
            for name, serial in connection.execute(issued):
                serials[name].append(int(serial, 16))
            rows = connection.execute(asked.order_by(nodes.c.node)).mappings().all()
        return tuple(_row(row, tuple(serials[row["node"]])) for row in rows)


def _status(connection: Connection, node: str) -> Status | None:
    found = connection.execute(
        select(nodes.c.status).where(nodes.c.node == node).with_for_update()
    ).scalar_one_or_none()
    return None if found is None else Status(found)


def _certify(connection: Connection, node: str, serial: int, now_ms: int) -> None:
    connection.execute(
        insert(certificates).values(serial=f"{serial:040x}", node=node, issued_ms=now_ms)
    )


def _row(row: RowMapping, serials: tuple[int, ...]) -> NodeRow:
    return NodeRow(
        node=row["node"],
        status=Status(row["status"]),
        reason=row["reason"],
        token_hash=row["token_hash"],
        token_expires_ms=row["token_expires_ms"],
        join_digest=row["join_digest"],
        watch_key=row["watch_key"],
        serials=serials,
        seen=Seen(row["node"]) if row["seen_node"] is None else _seen(row),
    )


def _seen(row: RowMapping) -> Seen:
    health = row["seen_health"]
    return Seen(
        node=row["node"],
        boot=row["seen_boot"],
        at_ms=row["seen_at_ms"],
        health=None if health is None else _health_decoder.decode(health),
        list_id=row["seen_list_id"],
        list_version=row["seen_list_version"],
        lease_left_s=row["seen_lease_left_s"],
        refused=row["seen_refused"],
        offered_id=row["seen_offered_id"],
        offered_version=row["seen_offered_version"],
    )


def _columns(one: Seen) -> dict[str, Any]:
    columns = {name: getattr(one, name) for name in one.__dataclass_fields__}
    health = one.health
    return columns | {"health": None if health is None else _health_encoder.encode(health)}
