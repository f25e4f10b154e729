"""The outbox's file on the card: SQLite, so that a power cut leaves all of a commit or none.

Rows enter and come back when the process starts again. This file is told what to write; which
rows there are is for durable.py, which holds them all in memory as well, so that a failing card
loses none while the process lives.

- WAL with synchronous=FULL: a commit has been through fsync when `write` returns (measured on
  this project's machine: 13 kB written per lone row, 1.3 kB per row in commits of 16).
- Forgetting needs no fsync: a delete that a power cut undoes sends an alert twice, and the
  controller stores it once.
- Each row carries a checksum: a card that turns a bit must not make a report that the controller
  can never read, in front of all alerts behind it.
- One process at a time, locked exclusively, which also spares the shared-memory file.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from appliance.alerts.outbox import Key, key_of
from appliance.errors import CardError, DamagedError
from appliance.wire import Row

log = logging.getLogger(__name__)

Step = tuple[bool, Sequence[Row]]
"""(True, rows to keep) or (False, rows to forget)."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS alerts (
    id INTEGER PRIMARY KEY, boot BLOB NOT NULL, sequence INTEGER NOT NULL,
    sealed BLOB NOT NULL, checksum INTEGER NOT NULL, UNIQUE (boot, sequence)
)"""
_INSERT = "INSERT OR IGNORE INTO alerts (boot, sequence, sealed, checksum) VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM alerts WHERE boot = ? AND sequence = ?"
_SELECT = "SELECT boot, sequence, sealed, checksum FROM alerts ORDER BY id"
_PARTS = ("", "-wal", "-shm")
"""What a database is made of: PATH, PATH-wal, PATH-shm."""
_SET_ASIDE_MOST = 3
"""Damaged files kept for somebody to look at; a dying card must not be filled with them."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY_S = 5.0


class Journal:
    """The open file. Used by one thread at a time.

    Args:
        path: of the database; made if missing. A damaged one is set aside under another name,
            and what can still be read of it is taken over.

    Attributes:
        rows: what the file held when it was opened, oldest first.

    Raises:
        CardError: it cannot be opened, or cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = _open(path)
        except DamagedError as e:
            log.error("outbox damaged: %s", e)  # noqa: TRY400 - the line says it all
            aside = _set_aside(path)
            saved = rows_in(aside)
            self._db = _open(path)
            self.write([(True, saved)])
            log.error("outbox: damaged file kept as %s, %d alerts saved from it", aside, len(saved))  # noqa: TRY400 - the same
        with _translated(path):
            self.rows = tuple(_sound(self._db.execute(_SELECT)))
        self._path = path

    def write(self, steps: Iterable[Step]) -> None:
        """Keep and forget rows, in this order, all or none, in one commit.

        Raises:
            CardError: nothing was written.
        DamagedError: the same, and this file will never do; opening it anew makes another.
        """
        steps = tuple(steps)
        keeps = any(keep for keep, _ in steps)
        with _translated("the outbox"):
            self._db.execute(f"PRAGMA synchronous = {'FULL' if keeps else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for keep, rows in steps:
                    if keep:
                        self._db.executemany(_INSERT, (_record(row) for row in rows))
                    else:
                        self._db.executemany(_DELETE, (key_of(row) for row in rows))
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file; what failed on it before may fail once more, which changes nothing."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def rows_in(path: Path) -> tuple[Row, ...]:
    """What can be read of a database that cannot be opened in place: read-only, or damaged.

    A copy is read, because SQLite writes even to read: it plays back the WAL.
    """
    found: list[Row] = []
    try:
        with tempfile.TemporaryDirectory(prefix="picket-outbox-") as folder:
            copy = Path(folder, "outbox.db")
            for part in _PARTS[:2]:
                if Path(f"{path}{part}").exists():
                    shutil.copyfile(f"{path}{part}", f"{copy}{part}")
            with contextlib.closing(sqlite3.connect(copy)) as db:
                for row in _sound(db.execute(_SELECT)):
                    found.append(row)  # noqa: PERF402 - what came before an error is kept
    except (sqlite3.Error, OSError) as e:
        log.error("outbox: %s cannot be read to its end: %s", path, e)  # noqa: TRY400 - the line says it all
    return tuple(found)


def _open(path: Path) -> sqlite3.Connection:
    with _translated(path):
        db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db, path)
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.close()
            raise
        return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Settings, read back because SQLite ignores what it cannot do; then check and schema."""
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise CardError(f"{path}: cannot be written ahead (journal mode {mode})")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_autocheckpoint = 200")
    db.execute(f"PRAGMA journal_size_limit = {2**20}")
    found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if found != "ok" or version not in (0, _VERSION):
        raise DamagedError(f"{path}: {found}, version {version}")
    # A version of its own in every file, so that a later form can be told from damage; and a
    # write, so that a card that takes none is found out now.
    db.execute("BEGIN IMMEDIATE")
    db.execute(_SCHEMA)
    db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute("COMMIT")


@contextlib.contextmanager
def _translated(what: Path | str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as e:
        code = getattr(e, "sqlite_errorcode", 0) & 0xFF
        kind = DamagedError if code in _DAMAGED else CardError
        raise kind(f"{what}: {e}") from e


def _set_aside(path: Path) -> Path:
    """Rename a damaged database, its WAL with it.

    Returns:
        Its new path.

    Raises:
        CardError: it cannot be renamed.
    """
    taken = sorted(path.parent.glob(f"{path.name}.damaged-*[0-9]"), key=lambda p: p.stat().st_mtime)
    number = 1 + max((int(p.name.rpartition("-")[2]) for p in taken), default=0)
    aside = path.with_name(f"{path.name}.damaged-{number}")
    try:
        for part in _PARTS:
            if Path(f"{path}{part}").exists():
                Path(f"{path}{part}").rename(f"{aside}{part}")
        for old in taken[: len(taken) + 1 - _SET_ASIDE_MOST]:
            for part in _PARTS:
                Path(f"{old}{part}").unlink(missing_ok=True)
    except OSError as e:
        raise CardError(f"{path}: damaged, and cannot be set aside: {e.strerror}") from e
    return aside


def _record(row: Row) -> tuple[bytes, int, bytes, int]:
    return row.boot, row.sequence, row.sealed, _checksum(row.boot, row.sequence, row.sealed)


def _checksum(boot: bytes, sequence: int, sealed: bytes) -> int:
    return zlib.crc32(sealed, zlib.crc32(boot, sequence & 0xFFFFFFFF))


def _sound(records: Iterable[tuple[object, ...]]) -> Iterator[Row]:
    """The rows that are what was written; others are named and left out."""
    for record in records:
        try:
            row = msgspec.convert(record[:3], Row)
        except msgspec.ValidationError as e:
            log.error("outbox: a row on the card is none: %s", e)  # noqa: TRY400 - the line says it all
            continue
        if _checksum(*key_of(row), row.sealed) != record[3]:
            log.error("outbox: alert %d of boot %s is damaged", row.sequence, row.boot.hex())
            continue
        yield row


def keys_of(rows: Iterable[Row]) -> set[Key]:
    """What the rows are deduplicated by."""
    return {key_of(row) for row in rows}
