"""Sealed alerts in memory until the next hop has them. A restart of the process loses them."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence

from appliance.errors import OutboxFullError
from appliance.wire import Row

Key = tuple[bytes, int]
"""(boot, sequence): what makes a row this row and no other."""


def key_of(row: Row) -> Key:
    """What a row is deduplicated by."""
    return row.boot, row.sequence


class MemoryOutbox:
    """First in, first out, no row twice. Implements Outbox; thread-safe.

    Args:
        capacity: rows held at most.

    Attributes:
        durable: False: what is in here ends with the process.
        refused: rows that were not kept because the outbox was full.
    """

    durable = False

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._filled = threading.Condition()
        self._rows: OrderedDict[Key, Row] = OrderedDict()
        self.refused = 0

    @property
    def depth(self) -> int:
        with self._filled:
            return len(self._rows)

    def put(self, rows: Sequence[Row]) -> None:
        with self._filled:
            new = {key: row for row in rows if (key := key_of(row)) not in self._rows}
            if len(self._rows) + len(new) > self._capacity:
                self.refused += len(new)
                raise OutboxFullError(
                    f"{len(self._rows)} alerts wait for the next hop, and {len(new)} more came:"
                    f" the outbox holds {self._capacity}"
                )
            self._rows.update(new)
            self._filled.notify_all()

    def adopt(self, rows: Sequence[Row]) -> None:
        """Keep rows of an earlier run, before all others and even beyond the capacity."""
        with self._filled:
            for row in reversed(rows):
                if (key := key_of(row)) not in self._rows:
                    self._rows[key] = row
                    self._rows.move_to_end(key, last=False)
            self._filled.notify_all()

    def peek(self, most: int) -> tuple[Row, ...]:
        with self._filled:
            return tuple(itertools.islice(self._rows.values(), max(most, 0)))

    def drop(self, rows: Sequence[Row]) -> None:
        with self._filled:
            for row in rows:
                self._rows.pop(key_of(row), None)

    def wait(self, timeout_s: float) -> bool:
        with self._filled:
            return self._filled.wait_for(lambda: bool(self._rows), timeout_s)
