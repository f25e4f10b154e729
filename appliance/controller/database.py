"""One database by its URL: opened, its schema made, transactions with our error for theirs.

SQLite: a file in WAL mode, every commit on the disk before it returns (synchronous=FULL), writers
wait for each other; what is deleted is overwritten (secure_delete), because content keys are.
PostgreSQL: through psycopg, as the server is configured; its default waits for its disk as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, make_url, select, update
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from appliance.controller.tables import SCHEMA_VERSION, meta, metadata
from appliance.errors import StoreError

_BUSY_MS = 10_000
_SCHEMA_LOCK = 7441
"""Any number that everybody who makes the schema agrees on."""


class Database:
    """An open database. Thread-safe.

    Args:
        url: "sqlite:///PATH" or "postgresql://USER@HOST/NAME".

    Raises:
        StoreError: it cannot be reached, or is of another schema.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._where = make_url(url).render_as_string(hide_password=True)
        self.dialect = self._engine.dialect.name
        try:
            self._make_schema()
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that changes nothing.

        Raises:
            StoreError: the database failed.
        """
        with self._translated(), self._engine.connect() as connection:
            yield connection.execution_options(picket_reads=True)

    @contextmanager
    def writing(self, *, notify: bool = False) -> Iterator[Connection]:
        """A transaction, committed at the end of the block unless it raised.

        Args:
            notify: move the revision, for what a running controller must notice.

        Raises:
            StoreError: the database failed, or the block said so; nothing was changed.
        """
        with self._translated(), self._engine.begin() as connection:
            yield connection
            if notify:
                connection.execute(
                    update(meta).where(meta.c.key == "revision").values(value=meta.c.value + 1)
                )

    def revision(self) -> int:
        """How often `writing(notify=True)` was committed."""
        with self.reading() as connection:
            row = connection.execute(select(meta.c.value).where(meta.c.key == "revision"))
            return int(row.scalar_one())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as e:
            # The first line says it; the rest is the statement and its parameters: secrets.
            reason = str(getattr(e, "orig", None) or e).strip().splitlines()
            raise StoreError(f"{self._where}: {reason[0] if reason else type(e).__name__}") from e

    def _make_schema(self) -> None:
        with self.writing() as connection:
            if self.dialect == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
            metadata.create_all(connection)
            have = dict(connection.execute(select(meta.c.key, meta.c.value)).all())
            if not have:
                have = {"schema": SCHEMA_VERSION, "revision": 0}
                connection.execute(insert(meta), [{"key": k, "value": v} for k, v in have.items()])
        if have["schema"] != SCHEMA_VERSION:
            raise StoreError(
                f"{self._where}: of schema {have['schema']}, this Picket uses {SCHEMA_VERSION}"
            )


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as e:
        raise StoreError(f"'{url}' is no address of a database") from e
    if parsed.drivername == "postgresql":
        return create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    if parsed.drivername != "sqlite" or not parsed.database:
        raise StoreError(f"'{parsed.drivername}': a store is sqlite:///PATH or postgresql://…")
    _private(Path(parsed.database))
    engine = create_engine(parsed)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _private(path: Path) -> None:
    """Make the file for its owner's eyes only; SQLite's other files take after it."""
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as e:
        raise StoreError(f"{path}: cannot be made: {e.strerror}") from e


def _configure_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DB-API connection
    # Transactions are begun by us, in _begin_sqlite: the driver would begin them too late.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={_BUSY_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its place in the queue at once: one that reads first could not wait later."""
    reads = connection.get_execution_options().get("picket_reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
