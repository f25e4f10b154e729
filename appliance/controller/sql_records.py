"""The lawful record in its table; `write` is for the other tables' transactions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, insert, select

from appliance.controller.database import Database
from appliance.controller.store import Record
from appliance.controller.tables import records


def write(
    connection: Connection, kind: str, *, now_ms: int, about: Mapping[str, object] | None = None
) -> None:
    """Add one line, in the transaction of whatever it tells of."""
    text = json.dumps(about or {}, ensure_ascii=False, separators=(",", ":"))
    connection.execute(insert(records).values(at_ms=now_ms, kind=kind, about=text))


class SqlRecords:
    """Implements store.Records."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, lines: Sequence[Record]) -> None:
        if lines:
            with self._database.writing() as connection:
                for line in lines:
                    write(connection, line.kind, now_ms=line.at_ms, about=line.about)

    def after(self, number: int) -> tuple[Record, ...]:
        with self._database.reading() as connection:
            rows = connection.execute(
                select(records.c.number, records.c.at_ms, records.c.kind, records.c.about)
                .where(records.c.number > number)
                .order_by(records.c.number)
            )
            return tuple(
                Record(at_ms, kind, json.loads(about), n) for n, at_ms, kind, about in rows
            )
