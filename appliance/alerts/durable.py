"""Sealed alerts on the card until the next hop has them: a power cut loses none that was kept.

Every row is in memory and in the journal; memory answers all questions, the journal is read
only at the start. So a card that turns read-only, full or damaged under way loses nothing: the
outbox says so (`durable`), goes on in memory, and writes all it holds to the card, or to a new
file, as soon as that works again. The price is memory: about 1.7 kB per row that waits.

Numbers are (boot, sequence), and boot is random at each start of the watch service, so a card
image from yesterday brings back old rows, never an old number on a new row.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from appliance.alerts.journal import Journal, Step, keys_of, rows_in
from appliance.alerts.outbox import Key, MemoryOutbox, key_of
from appliance.errors import CardError, DamagedError
from appliance.wire import Row

log = logging.getLogger(__name__)


class SqliteOutbox:
    """Implements Outbox on a file. Thread-safe; rows put by several threads share a commit.

    While one thread waits for the card, others queue up behind it, and the next commit has all
    of theirs: under load many rows share one fsync, and a lone row waits for nobody.

    Args:
        path: of the database, in a folder that exists.
        capacity: rows held at most.
        retry_s: while the card takes nothing, how long until it is tried again.

    Attributes:
        durable: False while rows are kept in memory only.
        refused: rows that were not kept because the outbox was full.
    """

    def __init__(self, path: Path, *, capacity: int, retry_s: float = 10.0) -> None:
        self._path, self._retry_s = path, retry_s
        self._memory = MemoryOutbox(capacity)
        self._card = threading.Lock()  # at the journal; taken before _order
        self._order = threading.Lock()  # memory and _queued change together
        self._queued: list[Step] = []
        self._issued = self._written = 0
        self._journal: Journal | None = None
        self._perhaps_on_card: set[Key] = set()
        self._retry_at_s = 0.0
        self._closed = False
        try:
            self._journal = Journal(path)
            found = self._journal.rows
        except CardError as e:
            found = rows_in(path)
            self._fail(e, keys_of(found))
        self._memory.adopt(found)
        if found:
            log.info("%d alerts of an earlier run wait for the controller", len(found))

    @property
    def durable(self) -> bool:
        return self._journal is not None

    @property
    def refused(self) -> int:
        return self._memory.refused

    @property
    def depth(self) -> int:
        return self._memory.depth

    def put(self, rows: Sequence[Row]) -> None:
        with self._order:
            self._memory.put(rows)
            ticket = self._queue(keep=True, rows=rows)
        self._write_up_to(ticket)

    def peek(self, most: int) -> tuple[Row, ...]:
        return self._memory.peek(most)

    def drop(self, rows: Sequence[Row]) -> None:
        with self._order:
            self._memory.drop(rows)
            ticket = self._queue(keep=False, rows=rows)
        self._write_up_to(ticket)

    def wait(self, timeout_s: float) -> bool:
        return self._memory.wait(timeout_s)

    def tend(self) -> None:
        """Try the card again if it failed and the time has come. Any thread, now and then."""
        with self._card:
            self._mend_if_due()

    def close(self) -> None:
        """Close the file. What is put afterwards is kept in memory only."""
        with self._card:
            self._closed = True
            if self._journal is not None:
                self._journal.close()
                self._journal = None

    def _queue(self, *, keep: bool, rows: Sequence[Row]) -> int:
        self._issued += 1
        self._queued.append((keep, tuple(rows)))
        return self._issued

    def _write_up_to(self, ticket: int) -> None:
        """Return when everything up to this ticket has been committed, or the card has failed."""
        with self._card:
            if self._written >= ticket:
                return  # whoever was at the card before has taken it along
            self._mend_if_due()
            with self._order:
                steps, self._queued = self._queued, []
                self._written = self._issued
            if self._journal is None or not steps:
                return
            try:
                self._journal.write(steps)
            except CardError as e:
                self._journal.close()
                self._journal = None
                with self._order:
                    held = keys_of(self._memory.peek(self._memory.depth))
                self._fail(e, held.union(*(keys_of(rows) for _, rows in steps)))
                if isinstance(e, DamagedError):  # a new file can be had at once
                    self._retry_at_s = 0.0
                    self._mend_if_due()

    def _fail(self, error: CardError, perhaps_on_card: set[Key]) -> None:
        self._retry_at_s = time.monotonic() + self._retry_s
        self._perhaps_on_card = perhaps_on_card
        log.error("outbox: alerts are kept in memory only, a power cut loses them: %s", error)

    def _mend_if_due(self) -> None:
        if self._journal is not None or self._closed or time.monotonic() < self._retry_at_s:
            return
        self._retry_at_s = time.monotonic() + self._retry_s
        try:
            journal = Journal(self._path)
        except CardError as e:
            log.debug("outbox: not yet: %s", e)
            return
        with self._order:
            held = self._memory.peek(self._memory.depth)
            self._queued.clear()
            self._written = self._issued
        known = keys_of(held)
        dropped = self._perhaps_on_card - known
        gone = [row for row in journal.rows if key_of(row) in dropped]
        try:
            journal.write([(False, gone), (True, held)])
        except CardError as e:
            journal.close()
            log.debug("outbox: not yet: %s", e)
            return
        settled = dropped | known
        # Rows that could not be read when this process started, and now can.
        self._memory.adopt([row for row in journal.rows if key_of(row) not in settled])
        self._journal = journal
        log.warning("outbox: the card takes alerts again; %d written", len(held))
