"""How long to leave a controller alone that does not answer."""

from __future__ import annotations

import random
import threading


class Backoff:
    """Waits twice as long after each failure, spread so that a fleet does not knock in step.

    Args:
        stop: ends a wait at once.
        rng: for the spread.
        shortest_s: about how long the first wait is.
        longest_s: no wait is longer.
    """

    def __init__(
        self,
        stop: threading.Event,
        rng: random.Random,
        *,
        shortest_s: float = 1.0,
        longest_s: float = 60.0,
    ) -> None:
        self._stop, self._rng = stop, rng
        self._shortest_s, self._longest_s = shortest_s, longest_s
        self.failures = 0

    def succeed(self) -> None:
        """Forget the failures."""
        self.failures = 0

    def fail(self) -> None:
        """Wait, longer than after the last failure."""
        wait_s = self.next_s()
        self.failures += 1
        self._stop.wait(wait_s)

    def next_s(self) -> float:
        """The next wait: half of it fixed, half of it random ("equal jitter").

        Source: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
        """
        # The exponent is bounded because 2.0 ** 1024 is an OverflowError, after days without.
        ceiling_s = min(self._longest_s, self._shortest_s * 2.0 ** min(self.failures, 32))
        return ceiling_s * (0.5 + 0.5 * self._rng.random())
