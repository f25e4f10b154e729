"""Watchlists in their tables: head, key, and ciphertext in pieces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from appliance.controller import sql_records
from appliance.controller.database import Database
from appliance.controller.store import ListRow
from appliance.controller.tables import lists, pieces
from appliance.errors import RowRefusedError


class SqlLists:
    """Implements store.Lists."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: ListRow, sealed_pieces: Iterable[bytes]) -> bool:
        this = (lists.c.list_id == row.list_id) & (lists.c.version == row.version)
        with self._database.writing(notify=True) as connection:
            kept = connection.execute(
                select(lists.c.head, lists.c.content_key).where(this).with_for_update()
            ).first()
            if kept is not None:
                if kept.head != row.head:
                    raise RowRefusedError(
                        f"list {row.list_id} version {row.version} is kept already and differs:"
                        " give a changed list a higher version"
                    )
                if kept.content_key is not None:
                    return False
                # Its deployment had ended, and begins again: key and pieces come back.
                connection.execute(delete(lists).where(this))
            columns = {name: getattr(row, name) for name in row.__dataclass_fields__}
            columns["counts"] = json.dumps(dict(row.counts))
            connection.execute(insert(lists).values(columns))
            for index, sealed in enumerate(sealed_pieces):
                connection.execute(
                    insert(pieces).values(
                        list_id=row.list_id, version=row.version, index=index, sealed=sealed
                    )
                )
            about = {
                "list_id": row.list_id,
                "version": row.version,
                "head_sha256": hashlib.sha256(row.head).hexdigest(),
                "counts": dict(row.counts),
            }
            sql_records.write(connection, "list-added", now_ms=row.added_ms, about=about)
        return True

    def get(self, list_id: str, version: int) -> ListRow | None:
        asked = select(lists).where((lists.c.list_id == list_id) & (lists.c.version == version))
        with self._database.reading() as connection:
            row = connection.execute(asked).mappings().first()
        return None if row is None else _row(row)

    def all(self) -> tuple[ListRow, ...]:
        asked = select(lists).order_by(lists.c.list_id, lists.c.version)
        with self._database.reading() as connection:
            return tuple(_row(row) for row in connection.execute(asked).mappings())

    def piece(self, list_id: str, version: int, index: int) -> bytes | None:
        asked = select(pieces.c.sealed).where(
            (pieces.c.list_id == list_id)
            & (pieces.c.version == version)
            & (pieces.c.index == index)
        )
        with self._database.reading() as connection:
            sealed: bytes | None = connection.execute(asked).scalar_one_or_none()
        return sealed


def destroy(connection: Connection, deployment: str, *, now_ms: int) -> None:
    """Forget the keys and pieces of a deployment's lists; their heads stay for the record."""
    these = (lists.c.deployment == deployment) & lists.c.content_key.is_not(None)
    doomed = connection.execute(select(lists.c.list_id, lists.c.version).where(these)).all()
    for list_id, version in doomed:
        connection.execute(
            update(lists)
            .where((lists.c.list_id == list_id) & (lists.c.version == version))
            .values(content_key=None)
        )
        connection.execute(
            delete(pieces).where((pieces.c.list_id == list_id) & (pieces.c.version == version))
        )
        about = {"list_id": list_id, "version": version, "deployment": deployment}
        sql_records.write(connection, "list-destroyed", now_ms=now_ms, about=about)


def _row(row: RowMapping) -> ListRow:
    return ListRow(**{**row, "counts": json.loads(row["counts"])})
