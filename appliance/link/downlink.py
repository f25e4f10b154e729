"""Watchlists from the controller. The node asks; a push is the answer to a parked poll.

1. hello     once per boot, and again when the controller does not know this boot (it restarted)
2. poll      says which list is in use, which acknowledges the last push, or why it was refused
3. push      goes to `admit`, which checks everything; this file trusts and opens nothing
   withdraw  goes to `withdraw`
   ack       nothing new: poll again
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from appliance.errors import DeniedError, LinkError, WatchlistError
from appliance.interfaces import Clock, Link
from appliance.link.backoff import Backoff
from appliance.link.question import ask
from appliance.wire import REASON_MAX_CHARS, Ack, Hello, Poll, Push, Welcome, Withdraw

log = logging.getLogger(__name__)


class Downlink:
    """Controller to watchlist. `step` is called by one thread.

    Args:
        link: to the controller.
        node: who asks.
        boot: 16 bytes, made at this start of the node.
        grant_key_public: what a grant is to be sealed to; made at this start of the node.
        model: id of the embedder.
        admit: takes a list into use, or raises WatchlistError.
        withdraw: closes the list in use; the deployment is over.
        in_use: (id, version) of the list in use, ("", 0) for none; asked before each poll, so
            a list that ended by itself is offered again.
        set_utc_ms: told the controller's time at each welcome, because a Pi may boot without.
        timeout_s: for an answer; a poll waits poll_s longer.
        poll_s: how long the controller may park a poll, at most 60.
        rng: spreads the waits after a failure.
        clock: for `answered_ns`.
        stop: ends a wait at once.

    Attributes:
        answered_ns: CLOCK_BOOTTIME of the controller's last answer, None before it.
        refused: why the last push was not taken into use, "" if it was.
    """

    def __init__(
        self,
        link: Link,
        *,
        node: str,
        boot: bytes,
        grant_key_public: bytes,
        model: str,
        admit: Callable[[Push], None],
        withdraw: Callable[[], None],
        in_use: Callable[[], tuple[str, int]],
        set_utc_ms: Callable[[int], None],
        timeout_s: float,
        poll_s: float,
        rng: random.Random,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._link, self._node, self._boot = link, node, boot
        self._hello = Hello(node, boot, grant_key_public, model)
        self._admit, self._withdraw, self._in_use = admit, withdraw, in_use
        self._set_utc_ms = set_utc_ms
        self._timeout_s, self._poll_s, self._clock = timeout_s, poll_s, clock
        self._backoff = Backoff(stop, rng)
        self._welcomed = False
        self.answered_ns: int | None = None
        self.refused = ""

    def step(self) -> None:
        """One hello or one poll; after a failure wait, longer each time."""
        try:
            if self._welcomed:
                self._poll()
            else:
                self._greet()
        except LinkError as e:
            if isinstance(e, DeniedError):
                self._welcomed = False
            if self._backoff.failures == 0:
                log.warning("no watchlists: %s", e)
            self._backoff.fail()
        else:
            self._backoff.succeed()

    def _greet(self) -> None:
        welcome = ask(self._link, self._hello, Welcome, self._timeout_s)
        self.answered_ns = self._clock.boot_ns()
        self._welcomed = True
        self._set_utc_ms(welcome.now_utc_ms)

    def _poll(self) -> None:
        list_id, version = self._in_use()
        poll = Poll(
            self._node, self._boot, list_id, version, self.refused, round(self._poll_s * 1e3)
        )
        answer = ask(self._link, poll, (Push, Withdraw, Ack), self._timeout_s + self._poll_s)
        self.answered_ns = self._clock.boot_ns()
        if isinstance(answer, Push):
            self._take(answer)
        elif isinstance(answer, Withdraw):
            log.info("list %s withdrawn", answer.list_id)
            self.refused = ""
            self._withdraw()

    def _take(self, push: Push) -> None:
        try:
            self._admit(push)
        except WatchlistError as e:
            self.refused = str(e)[:REASON_MAX_CHARS] or type(e).__name__
            log.error("watchlist refused: %s", e)  # noqa: TRY400 - the line says it all
        else:
            self.refused = ""
            log.info("watchlist %s version %d in use", *self._in_use())
