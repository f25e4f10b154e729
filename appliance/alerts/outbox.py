"""Alerts in memory until the controller has them. A restart of the process loses them."""

from __future__ import annotations

import threading
from collections import deque

import msgspec

from appliance.errors import OutboxFullError
from appliance.wire import Alert


class MemoryOutbox:
    """First in, first out, numbered without a gap. Thread-safe.

    Args:
        capacity: alerts held at most.

    Attributes:
        refused: alerts that were not kept because the outbox was full.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._filled = threading.Condition()
        self._alerts: deque[Alert] = deque()
        self._last = 0
        self.refused = 0

    @property
    def depth(self) -> int:
        with self._filled:
            return len(self._alerts)

    def put(self, alert: Alert) -> int:
        with self._filled:
            if len(self._alerts) >= self._capacity:
                self.refused += 1
                raise OutboxFullError(
                    f"{len(self._alerts)} alerts wait for the controller:"
                    f" the outbox holds {self._capacity}"
                )
            self._last += 1
            self._alerts.append(msgspec.structs.replace(alert, sequence=self._last))
            self._filled.notify_all()
            return self._last

    def peek(self, most: int) -> tuple[Alert, ...]:
        with self._filled:
            return tuple(self._alerts[i] for i in range(min(most, len(self._alerts))))

    def drop(self, up_to: int) -> None:
        with self._filled:
            while self._alerts and self._alerts[0].sequence <= up_to:
                self._alerts.popleft()

    def wait(self, timeout_s: float) -> bool:
        with self._filled:
            return self._filled.wait_for(lambda: bool(self._alerts), timeout_s)
