"""How long to leave a next hop alone that does not answer."""

from __future__ import annotations

import random
import threading

from appliance.interfaces import Clock


class Backoff:
    """Waits twice as long after each failure, spread so that a fleet does not knock in step.

    A wait is taken in slices (`rest`), because a thread that makes no step for a minute looks
    hung to the watchdog. Used by one thread, but for `hurry`.

    Args:
        stop: ends a slice at once.
        rng: for the spread.
        clock: tells when a wait is over.
        shortest_s: about how long the first wait is.
        longest_s: no wait is longer.

    Attributes:
        failures: since the last success.
    """

    def __init__(
        self,
        stop: threading.Event,
        rng: random.Random,
        clock: Clock,
        *,
        shortest_s: float = 1.0,
        longest_s: float = 60.0,
    ) -> None:
        self._stop, self._rng, self._clock = stop, rng, clock
        self._shortest_s, self._longest_s = shortest_s, longest_s
        self._until_ns = 0
        self.failures = 0

    def succeed(self) -> None:
        """Forget the failures."""
        self.failures = 0

    def fail(self) -> None:
        """Leave it alone from now on, for longer than after the last failure."""
        self._until_ns = self._clock.boot_ns() + round(self.next_s() * 1e9)
        self.failures += 1

    def hurry(self) -> None:
        """End the wait: there is word from the next hop. Any thread."""
        self._until_ns = 0

    def rest(self, slice_s: float = 1.0) -> bool:
        """Wait for what is left of the wait, slice_s at most.

        Returns:
            True if it is time to try again; False if not yet, or if it is time to stop.
        """
        left_s = (self._until_ns - self._clock.boot_ns()) / 1e9
        if left_s <= 0:
            return True
        return not self._stop.wait(min(left_s, slice_s)) and left_s <= slice_s

    def next_s(self) -> float:
        """The next wait: half of it fixed, half of it random ("equal jitter").

        Source: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
        """
        # The exponent is bounded because 2.0 ** 1024 is an OverflowError, after days without.
        ceiling_s = min(self._longest_s, self._shortest_s * 2.0 ** min(self.failures, 32))
        return ceiling_s * (0.5 + 0.5 * self._rng.random())
