"""What the controller answers, without a socket: questions in, answers out, polls parked.

A poll is answered at once when there is something to say, and parked when there is not: until
its time is up (`expire`) or there is a new list (`publish`). All state in here is about boots
that said hello and may be lost: a node that is told "unknown boot" says hello again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from appliance.controller.events import Notify, event, event_of
from appliance.controller.library import Listing
from appliance.controller.register import Register, Stored
from appliance.errors import ControllerError, WatchlistError
from appliance.interfaces import Clock
from appliance.watchlist.grant import seal_grant
from appliance.wire import (
    REASON_MAX_CHARS,
    Ack,
    Alert,
    Answer,
    Deny,
    Health,
    Hello,
    Poll,
    Push,
    Report,
    Request,
    Welcome,
    Withdraw,
    encode,
)

Reply = tuple[bytes, Answer]
"""Where to, as given to `answer`, and what."""

_RETRY_S = 60.0
"""After a refusal, until the same list is offered again: a node's clock may have been wrong."""


@dataclass(frozen=True, slots=True)
class _Parked:
    reply_to: bytes
    poll: Poll
    until_ns: int


@dataclass(slots=True)
class _Session:
    """One boot of one node.

    Attributes:
        pushed: (id, version) of a list that was sent and not yet answered for.
        refused: (id, version) of the list that the node refused.
        retry_ns: when that list may be offered again.
        renew_ns: when the grant is half used up and is to be renewed.
    """

    hello: Hello
    pushed: tuple[str, int] | None = None
    refused: tuple[str, int] | None = None
    retry_ns: int = 0
    renew_ns: int = 0
    parked: _Parked | None = None


class Endpoints:
    """Every question's answer. Thread-safe; one question is answered at a time.

    Args:
        register: keeps alerts and what is known of nodes.
        clock: for leases and parked polls.
        utc_ns: wall clock, told to nodes that have none.
        lease_s: how long a grant lasts; it is renewed at half of it.
        notify: told of each event before the question that caused it is answered.
        max_nodes: boots remembered at most.
    """

    def __init__(
        self,
        register: Register,
        *,
        clock: Clock,
        utc_ns: Callable[[], int],
        lease_s: int,
        notify: Notify,
        max_nodes: int = 10_000,
    ) -> None:
        self._register, self._clock, self._utc_ns = register, clock, utc_ns
        self._lease_s, self._notify, self._max_nodes = lease_s, notify, max_nodes
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        self._listing: Listing | None = None
        self._withdrawn = ""

    def answer(self, request: Request, reply_to: bytes) -> Answer | None:
        """The answer, or None: parked, and `expire` or `publish` will have it.

        Args:
            request: what a node asked.
            reply_to: given back with the answer of a parked poll.
        """
        received_ns = self._clock.boot_ns()
        with self._lock:
            try:
                match request:
                    case Hello():
                        return self._greet(request)
                    case Poll():
                        return self._poll(request, reply_to)
                    case Report():
                        return self._store(request, received_ns)
                    case Health():
                        return self._hear(request, received_ns)
            except (ControllerError, WatchlistError) as e:
                return Deny(str(e)[:REASON_MAX_CHARS])

    def publish(self, listing: Listing | None) -> list[Reply]:
        """Take a list into use, or withdraw the one in use; answers every parked poll.

        Args:
            listing: None withdraws.
        """
        with self._lock:
            if listing is None and self._listing is not None:
                self._withdrawn = self._listing.list_id
            self._listing = listing
            return self._answer_parked()

    def expire(self) -> list[Reply]:
        """Answers of the polls whose time is up, or for which there is something to say now."""
        with self._lock:
            return self._answer_parked()

    def _answer_parked(self) -> list[Reply]:
        replies: list[Reply] = []
        now_ns = self._clock.boot_ns()
        for session in self._sessions.values():
            parked = session.parked
            if parked is None:
                continue
            answer = self._news(session, parked.poll)
            if answer is None and now_ns >= parked.until_ns:
                answer = Ack(0)
            if answer is not None:
                session.parked = None
                replies.append((parked.reply_to, answer))
        return replies

    def _greet(self, hello: Hello) -> Answer:
        known = self._sessions.get(hello.node)
        if known is None and len(self._sessions) >= self._max_nodes:
            return Deny(f"{self._max_nodes} nodes are known, which is as many as may be")
        if known is None or known.hello != hello:
            self._sessions[hello.node] = _Session(hello)
            self._tell("hello", hello.node, hello.boot, model=hello.model)
        return Welcome(self._utc_ns() // 1_000_000)

    def _poll(self, poll: Poll, reply_to: bytes) -> Answer | None:
        session = self._sessions.get(poll.node)
        if session is None or session.hello.boot != poll.boot:
            return Deny("unknown boot")
        self._settle(session, poll)
        answer = self._news(session, poll)
        if answer is not None or poll.wait_ms == 0:
            return answer or Ack(0)
        # A poll parked before was given up by its node, which asks one at a time.
        until_ns = self._clock.boot_ns() + poll.wait_ms * 1_000_000
        session.parked = _Parked(reply_to, poll, until_ns)
        return None

    def _settle(self, session: _Session, poll: Poll) -> None:
        """What the node made of the last push. Neither: it never came, and is sent again."""
        self._register.listed(
            poll.node,
            poll.boot,
            list_id=poll.list_id,
            list_version=poll.list_version,
            refused=poll.refused,
        )
        if session.pushed is None:
            return
        list_id, version = session.pushed
        named = {"list_id": list_id, "list_version": version}
        if poll.refused:
            session.refused = session.pushed
            session.retry_ns = self._clock.boot_ns() + round(_RETRY_S * 1e9)
            self._tell("refused", poll.node, poll.boot, **named, reason=poll.refused)
        elif (poll.list_id, poll.list_version) == session.pushed:
            self._tell("accepted", poll.node, poll.boot, **named)
        session.pushed = None

    def _news(self, session: _Session, poll: Poll) -> Push | Withdraw | Deny | None:
        """What there is to say to a node that has this in use."""
        listing, now_ns = self._listing, self._clock.boot_ns()
        if listing is None:
            if not poll.list_id or poll.list_id != self._withdrawn:
                return None
            self._tell("withdrawn", poll.node, poll.boot, list_id=poll.list_id)
            return Withdraw(poll.list_id)
        offered = (listing.list_id, listing.version)
        if (poll.list_id, poll.list_version) == offered and now_ns < session.renew_ns:
            return None
        if session.refused == offered and now_ns < session.retry_ns:
            return None
        return self._push(session, listing)

    def _push(self, session: _Session, listing: Listing) -> Push | Deny:
        hello = session.hello
        try:
            grant = seal_grant(
                listing.content_key,
                hello.grant_key,
                node=hello.node,
                boot=hello.boot,
                header_digest=listing.header_digest,
                deployment=listing.deployment,
                lease_s=self._lease_s,
            )
        except WatchlistError as e:  # the node's key is none
            return Deny(str(e)[:REASON_MAX_CHARS])
        session.pushed = (listing.list_id, listing.version)
        session.renew_ns = self._clock.boot_ns() + self._lease_s * 500_000_000
        self._tell(
            "pushed",
            hello.node,
            hello.boot,
            list_id=listing.list_id,
            list_version=listing.version,
            lease_s=self._lease_s,
        )
        return Push(listing.bundle, grant)

    def _store(self, report: Report, received_ns: int) -> Answer:
        for alert in report.alerts:
            if (alert.node, alert.boot) != (report.node, report.boot):
                return Deny(f"alert {alert.sequence} is not of this boot of this node")
        for alert, receipt in zip(report.alerts, self._register.store(report.alerts), strict=True):
            if receipt.gap is not None:
                gap = receipt.gap
                self._tell("gap", alert.node, alert.boot, first=gap.first, last=gap.last)
            self._tell_alert(alert, receipt.stored, received_ns)
        return Ack(report.alerts[-1].sequence)

    def _hear(self, health: Health, received_ns: int) -> Answer:
        self._register.heard(health)
        self._notify(event_of("health", health, received_boot_ns=received_ns))
        return Ack(0)

    def _tell_alert(self, alert: Alert, stored: Stored, received_ns: int) -> None:
        if stored is Stored.NEW:
            self._notify(
                event_of("alert", alert, nbytes=len(encode(alert)), received_boot_ns=received_ns)
            )
        elif stored is Stored.CONFLICT:
            self._tell(
                "conflict",
                alert.node,
                alert.boot,
                sequence=alert.sequence,
                alert_id=alert.alert_id,
            )
        else:
            self._tell("duplicate", alert.node, alert.boot, sequence=alert.sequence)

    def _tell(self, kind: str, node: str, boot: bytes, **fields: object) -> None:
        self._notify(event(kind, node=node, boot=boot, **fields))
