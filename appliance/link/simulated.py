"""A link without a network, with a cable to pull and answers to lose."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from appliance.errors import LinkError
from appliance.wire import REQUEST_MAX_BYTES

_REMEMBERED = 10_000


class SimulatedLink:
    """Implements Link. Thread-safe.

    Args:
        answer: the controller: a question in, an answer out. It may raise LinkError.
        request_max_bytes: what is sent at most.

    Attributes:
        up: False when the cable is pulled: nothing arrives.
        lose_next_answer: the next question arrives, its answer does not.
        arrived: the questions that arrived, the newest ten thousand.
    """

    def __init__(
        self, answer: Callable[[bytes], bytes], *, request_max_bytes: int = REQUEST_MAX_BYTES
    ) -> None:
        self._answer = answer
        self._request_max_bytes = request_max_bytes
        self._lock = threading.Lock()
        self._closed = False
        self.up = True
        self.lose_next_answer = False
        self.arrived: deque[bytes] = deque(maxlen=_REMEMBERED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Whether the cable is plugged in."""
        return self.up

    def request(self, message: bytes, timeout_s: float) -> bytes:
        if len(message) > self._request_max_bytes:
            raise LinkError(
                f"question of {len(message)} bytes: at most {self._request_max_bytes} are sent"
            )
        with self._lock:
            if self._closed:
                raise LinkError("simulated: the link is closed")
            if not self.up:
                raise LinkError(f"simulated: no connection within {timeout_s:g} s")
            self.arrived.append(message)
            lost, self.lose_next_answer = self.lose_next_answer, False
        answer = self._answer(message)
        if lost or not self.up:
            raise LinkError(f"simulated: no answer within {timeout_s:g} s")
        return answer

    def close(self) -> None:
        """Refuse every further question."""
        with self._lock:
            self._closed = True
