"""Which frame of a recording it is time for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

from appliance.errors import CameraError
from appliance.interfaces import Clock

PaceName = Literal["realtime", "flat-out"]


class Pace:
    """Turns time into frame numbers. The recording begins at the first `next`.

    In real time frame n is due n / fps after the beginning. Whoever comes late gets the newest
    frame that is due, as from a sensor; whoever comes early waits. Flat out, every frame is due
    at once and none is passed over.

    Args:
        fps: frames per second.
        clock: CLOCK_BOOTTIME.
        pace: see above.
        wait: sleeps for so many seconds.

    Attributes:
        dropped: frames passed over.
    """

    def __init__(
        self,
        *,
        fps: float,
        clock: Clock,
        pace: PaceName,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._fps, self._clock, self._pace, self._wait = fps, clock, pace, wait
        self._began_ns: int | None = None
        self._next = 0
        self.dropped = 0

    def next(self, timeout_s: float) -> tuple[int, int]:
        """The frame to show now.

        Returns:
            Its number, from 0, and CLOCK_BOOTTIME of its exposure in nanoseconds.

        Raises:
            CameraError: it is not due within timeout_s.
        """
        now_ns = self._clock.boot_ns()
        if self._began_ns is None:
            self._began_ns = now_ns
        if self._pace == "flat-out":
            number = self._next
            self._next += 1
            return number, now_ns
        early_s = (self._due_ns(self._next) - now_ns) / 1e9
        if early_s > timeout_s:
            self._wait(timeout_s)
            raise CameraError(f"no frame within {timeout_s} s: the next is due in {early_s:.3f} s")
        if early_s > 0:
            self._wait(early_s)
            now_ns = self._clock.boot_ns()
        newest = math.floor((now_ns - self._began_ns) * self._fps / 1e9)
        number = max(self._next, newest)
        self.dropped += number - self._next
        self._next = number + 1
        return number, self._due_ns(number)

    def _due_ns(self, number: int) -> int:
        began_ns = self._began_ns if self._began_ns is not None else self._clock.boot_ns()
        return began_ns + round(number * 1e9 / self._fps)
