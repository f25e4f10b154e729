"""Alerts to the controller, at least once and in order; health, whenever the node has some.

An alert leaves the outbox only when the controller has said that it is stored. An answer that
is lost makes the same alerts go again; the controller knows them by (node, boot, sequence).
"""

from __future__ import annotations

import logging
import random
import threading
import time

from appliance.errors import LinkError
from appliance.interfaces import Clock, Link, Outbox
from appliance.link.backoff import Backoff
from appliance.link.question import ask
from appliance.wire import ALERTS_PER_REPORT, Ack, Health, Report

log = logging.getLogger(__name__)

_IDLE_S = 0.5


class Uplink:
    """Outbox to controller. `step` and `flush` are called by one thread at a time.

    Args:
        outbox: alerts of this boot.
        link: to the controller.
        node: who sends.
        boot: 16 bytes, made at this start of the node.
        timeout_s: for an answer.
        rng: spreads the waits after a failure.
        clock: for `answered_ns`.
        stop: ends a wait at once.

    Attributes:
        answered_ns: CLOCK_BOOTTIME of the controller's last acknowledgement, None before it.
    """

    def __init__(
        self,
        outbox: Outbox,
        link: Link,
        *,
        node: str,
        boot: bytes,
        timeout_s: float,
        rng: random.Random,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._outbox, self._link = outbox, link
        self._node, self._boot = node, boot
        self._timeout_s, self._clock = timeout_s, clock
        self._backoff = Backoff(stop, rng)
        self.answered_ns: int | None = None

    def step(self) -> None:
        """Send the oldest alerts, or wait a little for some; after a failure wait longer."""
        if not self._outbox.wait(_IDLE_S):
            return
        try:
            self._send_oldest(self._timeout_s)
        except LinkError as e:
            if self._backoff.failures == 0:
                log.warning("%d alerts wait: %s", self._outbox.depth, e)
            self._backoff.fail()
        else:
            self._backoff.succeed()

    def flush(self, timeout_s: float) -> int:
        """Send what is left, for a clean end.

        Args:
            timeout_s: for all of it. The first failure ends it sooner.

        Returns:
            How many alerts the controller has not acknowledged.
        """
        deadline_s = time.monotonic() + timeout_s
        while self._outbox.depth and (left_s := deadline_s - time.monotonic()) > 0:
            try:
                self._send_oldest(left_s)
            except LinkError as e:
                log.warning("%d alerts are left: %s", self._outbox.depth, e)
                break
        return self._outbox.depth

    def send_health(self, health: Health) -> None:
        """Send one health message, once. Any thread may call this.

        Raises:
            LinkError: it was not acknowledged.
        """
        ask(self._link, health, Ack, self._timeout_s)
        self.answered_ns = self._clock.boot_ns()

    def _send_oldest(self, timeout_s: float) -> None:
        alerts = self._outbox.peek(ALERTS_PER_REPORT)
        ack = ask(self._link, Report(self._node, self._boot, alerts), Ack, timeout_s)
        first, last = alerts[0].sequence, alerts[-1].sequence
        if ack.up_to < first:
            raise LinkError(f"alert {first} was answered by an acknowledgement up to {ack.up_to}")
        # Never more than was sent: a controller must not be able to empty the outbox.
        self._outbox.drop(min(ack.up_to, last))
        self.answered_ns = self._clock.boot_ns()
