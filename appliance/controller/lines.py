"""Lines for the record that wait for the next commit: an answer to a node does not wait for one."""

from __future__ import annotations

import threading

from appliance.controller.store import Record, Records


class Lines:
    """Thread-safe. What is lost with the process is a second of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: list[Record] = []

    def add(self, kind: str, at_ms: int, **about: object) -> None:
        """One more line."""
        with self._lock:
            self._lines.append(Record(at_ms, kind, about))

    def flush(self, records: Records) -> None:
        """Write them.

        Raises:
            StoreError: they could not be written, and will be by the next flush.
        """
        with self._lock:
            lines, self._lines = self._lines, []
        try:
            records.append(lines)
        except BaseException:
            with self._lock:
                self._lines[:0] = lines
            raise
