"""Watchlists and orders for the watch service. It asks; a push is the answer to a parked poll.

1. hello   at each start, after a wipe, and when the controller does not know this boot: the key
           in RAM to which grants are sealed, signed by the watch service's identity
2. poll    which list is in use, which acknowledges the last push, or why it was refused; with a
           nonce that the stamp which answers must repeat
3. offer   goes to the door (watchlist/trusted.py), which checks everything; this file trusts and
           opens nothing. The door says which pieces it wants; a withdraw or a wipe wants none
4. fetch   one piece a step, handed to the door at once. If one does not come, the next poll
           brings the offer again, and the door wants only what is still missing

It runs in the watch service and asks through the link service.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from appliance.errors import DeniedError, LinkError, SecretMemoryError, WatchlistError
from appliance.interfaces import Clock, Link
from appliance.link.backoff import Backoff
from appliance.link.question import ask
from appliance.wire import (
    REASON_MAX_CHARS,
    Ack,
    Fetch,
    Hello,
    Offer,
    Piece,
    Poll,
    Welcome,
    hello_signed_part,
)

log = logging.getLogger(__name__)

_WIPE = "wipe"


class InUse(Protocol):
    """The list in use, as far as a poll tells of it."""

    @property
    def list_id(self) -> str:
        """Of the list."""

    @property
    def version(self) -> int:
        """Of the list."""

    @property
    def lease_end_ns(self) -> int:
        """CLOCK_BOOTTIME when it is overwritten, unless the lease is renewed."""


class Wanted(Protocol):
    """What an offer that passed its checks asks for."""

    @property
    def action(self) -> str:
        """What was ordered: "grant", "withdraw" or "wipe"."""

    @property
    def list_id(self) -> str:
        """Of the list."""

    @property
    def version(self) -> int:
        """Of the list."""

    @property
    def pieces(self) -> tuple[int, ...]:
        """What to fetch, in order; none after a renewal, a withdraw or a wipe."""


class Door(Protocol):
    """What decides: watchlist/trusted.py. Refusals are WatchlistError or SecretMemoryError."""

    @property
    def current(self) -> InUse | None:
        """The list in use."""

    @property
    def grant_key_public(self) -> bytes:
        """For Hello; another one after a wipe."""

    def raise_floors(self, floors: Iterable[tuple[str, int]]) -> None:
        """Take in what the link service kept of earlier boots."""

    def new_nonce(self, *, now_ns: int) -> bytes:
        """For the next poll."""

    def offer(self, offer: Offer, *, now_ns: int) -> Wanted:
        """Check the answer to the last poll."""

    def piece(self, index: int, sealed: bytes, *, now_ns: int) -> bool:
        """Take a piece in; True if it was the last and the list is in use now."""

    def nothing_new(self) -> None:
        """A poll was answered, and no list is on offer: one that is half here will not come."""


class Downlink:
    """Controller to watchlist. `step` is called by one thread; it makes no wait over poll_s.

    Args:
        link: to the link service.
        door: takes lists into use.
        sign: Ed25519 by the watch service's identity.
        node: who asks.
        boot: 16 bytes, made at this start of the watch service.
        model: id of the embedder.
        timeout_s: for an answer, above what the link service gives the controller; a poll waits
            poll_s longer.
        poll_s: how long the controller may park a poll, at most 60.
        rng: spreads the waits after a failure.
        clock: for leases and `answered_ns`.
        stop: ends a wait at once.
        longest_s: no wait after a failure is longer.

    Attributes:
        answered_ns: CLOCK_BOOTTIME of the controller's last answer, None before it.
        refused: why the last offer was not taken into use, "" if it was.
        fetching: (pieces that are here, pieces in all) while a list is on its way, else None.
    """

    def __init__(
        self,
        link: Link,
        door: Door,
        *,
        sign: Callable[[bytes], bytes],
        node: str,
        boot: bytes,
        model: str,
        timeout_s: float,
        poll_s: float,
        rng: random.Random,
        clock: Clock,
        stop: threading.Event,
        longest_s: float = 60.0,
    ) -> None:
        self._link, self._door, self._sign = link, door, sign
        self._node, self._boot, self._model = node, boot, model
        self._timeout_s, self._poll_s, self._clock = timeout_s, poll_s, clock
        self._stop = stop
        self._backoff = Backoff(stop, rng, clock, longest_s=longest_s)
        self._welcomed = False
        self._wanted: Wanted | None = None
        self._next = 0
        self.answered_ns: int | None = None
        self.refused = ""

    @property
    def fetching(self) -> tuple[int, int] | None:
        wanted = self._wanted
        return None if wanted is None else (self._next, len(wanted.pieces))

    def step(self) -> None:
        """One question: hello, poll or fetch; after a failure none for a while."""
        if not self._backoff.rest():
            return
        try:
            if not self._welcomed:
                self._greet()
            elif self._wanted is not None:
                self._fetch(self._wanted)
            else:
                self._poll()
        except LinkError as e:
            if isinstance(e, DeniedError) and self._wanted is None:
                self._welcomed = False
            self._wanted = None
            if self._backoff.failures == 0 and not self._stop.is_set():
                log.warning("no watchlists: %s", e)
            self._backoff.fail()
        except (WatchlistError, SecretMemoryError) as e:
            self._wanted = None
            if self.refused:  # and again: the controller is told, but not in a tight circle
                self._backoff.fail()
            self.refused = str(e)[:REASON_MAX_CHARS] or type(e).__name__
            log.error("watchlist refused: %s: %s", type(e).__name__, e)  # noqa: TRY400 - the line says it all
        else:
            self._backoff.succeed()

    def _greet(self) -> None:
        key = self._door.grant_key_public
        signature = self._sign(hello_signed_part(self._node, self._boot, key, self._model))
        hello = Hello(self._node, self._boot, key, self._model, signature)
        welcome = ask(self._link, hello, Welcome, self._timeout_s)
        self._answered()
        self._door.raise_floors(welcome.floors)
        self._welcomed = True

    def _poll(self) -> None:
        now_ns = self._clock.boot_ns()
        current = self._door.current
        poll = Poll(
            node=self._node,
            boot=self._boot,
            nonce=self._door.new_nonce(now_ns=now_ns),
            list_id=current.list_id if current else "",
            list_version=current.version if current else 0,
            refused=self.refused,
            lease_left_s=max(0, current.lease_end_ns - now_ns) // 10**9 if current else 0,
            wait_ms=round(self._poll_s * 1e3),
        )
        expected: tuple[type[Offer], type[Ack]] = (Offer, Ack)
        answer = ask(self._link, poll, expected, self._timeout_s + self._poll_s)
        self._answered()
        if isinstance(answer, Offer):
            self._take(answer)
        else:
            self._door.nothing_new()

    def _take(self, offer: Offer) -> None:
        wanted = self._door.offer(offer, now_ns=self._clock.boot_ns())
        self.refused = ""
        if wanted.pieces:
            log.info(
                "list %s version %d: %d pieces to fetch",
                wanted.list_id,
                wanted.version,
                len(wanted.pieces),
            )
            self._wanted, self._next = wanted, 0
            return
        log.info("%s: list %s version %d", wanted.action, wanted.list_id or "any", wanted.version)
        if wanted.action == _WIPE:
            self._welcomed = False  # grants must be sealed to the new key

    def _fetch(self, wanted: Wanted) -> None:
        index = wanted.pieces[self._next]
        fetch = Fetch(self._node, wanted.list_id, wanted.version, index)
        piece = ask(self._link, fetch, Piece, self._timeout_s)
        self._answered()
        if piece.index != index:
            raise LinkError(f"piece {index} was asked for, piece {piece.index} came")
        if self._door.piece(index, piece.sealed, now_ns=self._clock.boot_ns()):
            log.info("list %s version %d in use", wanted.list_id, wanted.version)
            self._wanted = None
            return
        self._next += 1
        if self._next == len(wanted.pieces):
            raise LinkError(f"list {wanted.list_id}: all pieces came, and it is not whole")

    def _answered(self) -> None:
        self.answered_ns = self._clock.boot_ns()
