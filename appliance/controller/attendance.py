"""What was last heard of each node: at once in memory, written to the store about once a second.

Health and polls come often and are not worth a commit each; what is lost with the process is a
second of them. Alerts never go through here.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from appliance.controller.store import NodeRow, Nodes, Seen


class Attendance:
    """Thread-safe.

    Args:
        nodes: written to by `flush`.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._lock = threading.Lock()
        self._seen: dict[str, Seen] = {}
        self._unwritten: set[str] = set()

    def expect(self, rows: Mapping[str, NodeRow]) -> None:
        """Start from what the store knows, for nodes that were not heard since."""
        with self._lock:
            for node, row in rows.items():
                self._seen.setdefault(node, row.seen)

    def last(self, node: str) -> Seen:
        """What was last heard of a node."""
        with self._lock:
            return self._seen.get(node, Seen(node))

    def heard(self, node: str, *, at_ms: int, **changes: Any) -> None:  # noqa: ANN401 - fields of Seen
        """A node has spoken.

        Args:
            node: whose certificate it was.
            at_ms: when.
            changes: fields of Seen that it told.
        """
        with self._lock:
            before = self._seen.get(node, Seen(node))
            self._seen[node] = replace(before, at_ms=at_ms, **changes)
            self._unwritten.add(node)

    def flush(self) -> None:
        """Write what changed.

        Raises:
            StoreError: it could not be written, and will be by the next flush.
        """
        with self._lock:
            names, self._unwritten = self._unwritten, set()
            changed = [self._seen[name] for name in names]
        try:
            self._nodes.heard(changed)
        except BaseException:
            with self._lock:
                self._unwritten |= names
            raise
