"""What the link service answers, without a socket: the watch service's questions in, answers out.

question   answered
Report     Ack after the outbox has committed, with or without a controller
Fetch      from the cache, else the controller's, which is then kept
Hello      the controller's Welcome, with the floors that this service keeps
Poll       the controller's; notes the floor of the list in use, and which list is on offer
Health     the controller's, after this service's own figures were filled in
others     Deny

This file trusts nothing that it relays and opens nothing: what is in an Offer is checked by the
watch service. Without a controller it says so within a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import UnionType
from typing import Protocol

import msgspec

from appliance.errors import LinkError, OutboxFullError, WireError
from appliance.interfaces import Link, Outbox
from appliance.link.cache import PieceCache
from appliance.link.floors import Floors
from appliance.wire import (
    REASON_MAX_CHARS,
    Ack,
    Answer,
    Deny,
    Fetch,
    Health,
    Hello,
    Offer,
    Piece,
    Poll,
    Report,
    Request,
    Welcome,
    decode_answer,
    decode_request,
    encode,
)

log = logging.getLogger(__name__)

UNREACHABLE_S = 1.0
"""How long a question waits for a connection. Not zero: it is questions by which the link notices
that an address has been silent for too long, and goes to the next."""


HEALTH_S = 2.0
"""How long the controller may take over a Health: the watch service waits three seconds."""


class Upstream(Link, Protocol):
    """A link that knows whether there is a connection."""

    @property
    def connected(self) -> bool:
        """Whether there is one; it may be frozen."""


class Kept(Outbox, Protocol):
    """An outbox that counts and confesses."""

    @property
    def durable(self) -> bool:
        """False while rows are in memory only."""

    @property
    def refused(self) -> int:
        """Rows that were not kept because it was full."""


NameOf = Callable[[bytes], tuple[str, int] | None]
"""(id, version) of the list in an Offer.head, None if it is no head; nothing is verified."""


class Relay:
    """Answers the watch service. Thread-safe.

    Args:
        node: the only one whose questions are answered.
        outbox: where alerts wait.
        upstream: to the controller.
        pieces: cache of ciphertext.
        floors: highest version of each list that was in use.
        name_of: reads which list an offer is about.
        answered: told that the controller has answered something.
        heard: told the controller's time, UTC in ms, at each Welcome.
        rss_mib: of this process.
        timeout_s: for the controller's answer; a poll waits its wait_ms longer.

    Attributes:
        hostile: messages received that were none of this node's questions.
    """

    def __init__(
        self,
        *,
        node: str,
        outbox: Kept,
        upstream: Upstream,
        pieces: PieceCache,
        floors: Floors,
        name_of: NameOf,
        answered: Callable[[], None],
        heard: Callable[[int], None],
        rss_mib: Callable[[], float],
        timeout_s: float,
    ) -> None:
        self._node, self._outbox, self._upstream = node, outbox, upstream
        self._pieces, self._floors, self._name_of = pieces, floors, name_of
        self._answered = answered
        self._heard, self._rss_mib, self._timeout_s = heard, rss_mib, timeout_s
        self._boot = b""
        self.hostile = 0

    def read(self, question: bytes) -> Request | Deny:
        """The question in these bytes, or what to answer to bytes that are none of ours."""
        try:
            request = decode_request(question)
        except WireError as e:
            return self._suspect("not a question", str(e))
        if not isinstance(request, Hello | Poll | Fetch | Report | Health):
            return self._suspect(f"a {type(request).__name__} is not answered here")
        if request.node != self._node:
            return self._suspect(f"this is the link of {self._node}, not of {request.node}")
        if isinstance(request, Hello):
            self._boot = request.boot
        return request

    def at_once(self, request: Request) -> Answer | None:
        """The answer to what needs no controller, after a commit if it is a Report; else None."""
        match request:
            case Report():
                return self._keep(request)
            case Fetch():
                sealed = self._pieces.get(request.list_id, request.list_version, request.index)
                return None if sealed is None else Piece(request.index, sealed)
            case _:
                return None

    def forward(self, request: Request) -> Answer:
        """The controller's answer, or that there is none; may take as long as a parked poll."""
        if isinstance(request, Hello | Poll) and self._boot not in {b"", request.boot}:
            # It waited here while the watch service was started again. Passed on now, it would
            # look to the controller as if two machines used this node's identity.
            return Deny("the watch service was started again since this was asked")
        try:
            return self._forward(request)
        except (LinkError, WireError) as e:
            return Deny(f"controller unreachable: {e}"[:REASON_MAX_CHARS])

    def _forward(self, request: Request) -> Answer:
        match request:
            case Hello():
                return self._greet(request)
            case Poll():
                return self._poll(request)
            case Fetch():
                return self._fetch(request)
            case Health():
                return self._ask(self._completed(request), Ack, HEALTH_S)
            case _:
                return Deny(f"a {type(request).__name__} is not answered here")

    def _suspect(self, reason: str, why: str = "") -> Deny:
        """Count it, and log the 1st, 2nd, 4th, 8th ...: a flood must not fill the journal."""
        self.hostile += 1
        if self.hostile & (self.hostile - 1) == 0:
            log.warning("no question of ours (%d so far): %s", self.hostile, why or reason)
        return Deny(reason)

    def _keep(self, report: Report) -> Answer:
        try:
            self._outbox.put(report.rows)
        except OutboxFullError as e:
            log.error("alerts refused: %s", e)  # noqa: TRY400 - the line says it all
            return Deny(str(e)[:REASON_MAX_CHARS])
        return Ack(durable=self._outbox.durable)

    def _greet(self, hello: Hello) -> Answer:
        answer = self._ask(hello, Welcome, self._timeout_s)
        if isinstance(answer, Welcome):
            self._heard(answer.now_utc_ms)
            return msgspec.structs.replace(answer, floors=self._floors.all())
        return answer

    def _poll(self, poll: Poll) -> Answer:
        # Before the controller hears of it: what it takes for acknowledged is kept by then.
        self._floors.in_use(poll.list_id, poll.list_version)
        answer = self._ask(poll, Offer | Ack, self._timeout_s + poll.wait_ms / 1e3)
        if isinstance(answer, Offer):
            self._note(answer)
        return answer

    def _note(self, offer: Offer) -> None:
        """Which pieces will be asked for; an offer without a list ends the one there was."""
        if not offer.head:
            self._pieces.clear()
            return
        name = self._name_of(offer.head)
        if name is not None:
            self._pieces.expect(*name, offer.digests)

    def _fetch(self, fetch: Fetch) -> Answer:
        answer = self._ask(fetch, Piece, self._timeout_s)
        if isinstance(answer, Piece) and answer.index == fetch.index:
            self._pieces.put(fetch.list_id, fetch.list_version, answer.index, answer.sealed)
        return answer

    def _completed(self, health: Health) -> Health:
        return msgspec.structs.replace(
            health,
            outbox=health.outbox + self._outbox.depth,
            link_rss_mib=self._rss_mib(),
            outbox_refused=self._outbox.refused,
            outbox_durable=self._outbox.durable,
        )

    def _ask(
        self, request: Request, expected: type[Answer] | UnionType, timeout_s: float
    ) -> Answer:
        """The controller's answer, if it is a Deny or makes sense here.

        Raises:
            LinkError: no answer in time, or one that makes no sense.
            WireError: what came is no answer.
        """
        patience_s = timeout_s if self._upstream.connected else UNREACHABLE_S
        answer = decode_answer(self._upstream.request(encode(request), patience_s))
        self._answered()
        if not isinstance(answer, expected) and not isinstance(answer, Deny):
            raise LinkError(f"a {type(request).__name__} was answered by a {type(answer).__name__}")
        return answer
