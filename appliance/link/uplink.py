"""Sealed alerts to the next hop, at least once and oldest first.

Used twice: from the watch service's memory to the link service, and from the link service's
outbox to the controller. A row leaves the outbox only when the next hop has said that it has it.
An answer that is lost makes the same rows go again; they are known by (boot, sequence).
"""

from __future__ import annotations

import logging
import random
import threading
import time

from appliance.errors import DeniedError, LinkError
from appliance.interfaces import Clock, Link, Outbox
from appliance.link.backoff import Backoff
from appliance.link.question import ask
from appliance.wire import ROWS_PER_REPORT, Ack, Report

log = logging.getLogger(__name__)

_IDLE_S = 0.5


class Uplink:
    """Outbox to next hop. `step` and `flush` are called by one thread at a time.

    Args:
        outbox: what waits.
        link: to the next hop.
        node: who sends.
        timeout_s: for an answer.
        rng: spreads the waits after a failure.
        clock: for `answered_ns`.
        stop: ends a wait at once.
        longest_s: no wait after a failure is longer.

    Attributes:
        answered_ns: CLOCK_BOOTTIME of the last acknowledgement, None before it.
        delivered: rows acknowledged so far; a row whose answer was lost counts once.
        durable: whether what the next hop acknowledged last outlives a power cut there.
        refused: why the next hop said no to the last report, such as a full outbox; "" if it
            did not.
    """

    def __init__(
        self,
        outbox: Outbox,
        link: Link,
        *,
        node: str,
        timeout_s: float,
        rng: random.Random,
        clock: Clock,
        stop: threading.Event,
        longest_s: float = 60.0,
    ) -> None:
        self._outbox, self._link, self._node = outbox, link, node
        self._timeout_s, self._clock = timeout_s, clock
        self._backoff = Backoff(stop, rng, clock, longest_s=longest_s)
        self.refused = ""
        self.durable = True
        self.answered_ns: int | None = None
        self.delivered = 0

    def step(self) -> None:
        """Send the oldest rows, or wait a little for some; after a failure none for a while."""
        if not self._backoff.rest() or not self._outbox.wait(_IDLE_S):
            return
        try:
            self._send_oldest(self._timeout_s)
        except LinkError as e:
            if self._backoff.failures == 0:
                log.warning("%d alerts wait: %s", self._outbox.depth, e)
            self.refused = str(e) if isinstance(e, DeniedError) else ""
            self._backoff.fail()
        else:
            if self._backoff.failures:
                log.info("alerts are taken again; %d are left", self._outbox.depth)
            self._backoff.succeed()

    def hurry(self) -> None:
        """The next hop has answered something: end a wait for it to come back. Any thread.

        A next hop that said no is there already, and is given its time.
        """
        if not self.refused:
            self._backoff.hurry()

    def flush(self, timeout_s: float) -> int:
        """Send what is left, for a clean end.

        Args:
            timeout_s: for all of it. The first failure ends it sooner.

        Returns:
            How many rows have not been acknowledged.
        """
        deadline_s = time.monotonic() + timeout_s
        while self._outbox.depth and (left_s := deadline_s - time.monotonic()) > 0:
            try:
                self._send_oldest(left_s)
            except LinkError as e:
                log.warning("%d alerts are left: %s", self._outbox.depth, e)
                break
        return self._outbox.depth

    def _send_oldest(self, timeout_s: float) -> None:
        rows = self._outbox.peek(ROWS_PER_REPORT)
        ack = ask(self._link, Report(self._node, rows), Ack, timeout_s)
        # Exactly what was sent: an answer must not be able to empty the outbox.
        self._outbox.drop(rows)
        self.refused, self.durable = "", ack.durable
        self.delivered += len(rows)
        self.answered_ns = self._clock.boot_ns()
