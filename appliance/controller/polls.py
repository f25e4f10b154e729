"""Hellos and polls: what a node is told, at once or when there is something to tell.

A poll is answered at once when there is something to say, and parked when there is not: until
its time is up (`expire`) or the plan has changed (`replan`). In which order a node is served:

1. an order to wipe              a stamp that says so, until a poll shows that it was done
2. quarantined                   nothing; when its time is up the poll is told why
3. no list is meant for it       a stamp that withdraws the one in use, if any
4. a list is meant for it        stamp and grant, unless it is in use and its lease still long
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.controller.attendance import Attendance
from appliance.controller.events import Notify, event
from appliance.controller.offers import Offers
from appliance.controller.office import Office
from appliance.controller.plan import Wanted
from appliance.controller.session import Parked, Session, Terms
from appliance.controller.store import Record, Seen, Status, Store
from appliance.errors import ControllerError, WatchlistError
from appliance.interfaces import Clock
from appliance.wire import (
    REASON_MAX_CHARS,
    Ack,
    Answer,
    Deny,
    Hello,
    Offer,
    Poll,
    Welcome,
    hello_signed_part,
)

Reply = tuple[bytes, Answer]
"""Where to, as it was received, and what."""

_S = 1_000_000_000
_RETRY_NS = 60 * _S
"""After a refusal, until the same list is offered again: a node's clock may have been wrong."""
_AGAIN_NS = 1 * _S
"""After an answer that may have been lost, until it is given again."""


class Polls:
    """Thread-safe; one question is answered at a time.

    Args:
        office: has the plan in force.
        store: for wipes that were done, quarantine and the record.
        attendance: told of each poll.
        offers: makes stamps and grants.
        clock: for leases and parked polls.
        utc_ms: wall clock.
        silent_hours: a node that comes back after a longer silence is quarantined.
        notify: told of each event.
    """

    def __init__(
        self,
        office: Office,
        store: Store,
        *,
        attendance: Attendance,
        offers: Offers,
        clock: Clock,
        utc_ms: Callable[[], int],
        silent_hours: float,
        notify: Notify,
    ) -> None:
        self._office, self._store, self._attendance = office, store, attendance
        self._offers, self._clock, self._utc_ms = offers, clock, utc_ms
        self._silent_ms = round(silent_hours * 3_600_000)
        self._notify = notify
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._lines: list[Record] = []

    def greet(self, hello: Hello) -> Answer:
        """Answer a hello; a node that must not be trusted yet is put into quarantine."""
        row = self._office.plan.nodes[hello.node]
        if row.watch_key is None or not _signed(hello, row.watch_key):
            return Deny("the hello is not signed by this node's watch service")
        with self._lock:
            session, seen = self._sessions.get(hello.node), self._attendance.last(hello.node)
            self._suspect(hello, session, seen)
            if session is None:
                session = self._sessions[hello.node] = Session(hello)
                if seen.boot not in {b"", hello.boot}:
                    session.former.append(seen.boot)
            elif session.hello != hello:
                session.begin(hello)
            self._attendance.heard(hello.node, at_ms=self._utc_ms(), boot=hello.boot)
        self._tell("hello", hello, model=hello.model)
        return Welcome(self._utc_ms())

    def poll(self, poll: Poll, reply_to: bytes) -> Answer | None:
        """Answer a poll, or park it and return None."""
        with self._lock:
            session = self._sessions.get(poll.node)
            if session is None or session.hello.boot != poll.boot:
                return Deny("unknown boot")
            self._settle(session, poll)
            answer = self._news(session, poll)
            if answer is not None or poll.wait_ms == 0:
                return answer or self._nothing(poll)
            # A poll parked before was given up by its node, which asks one at a time.
            until_ns = self._clock.boot_ns() + poll.wait_ms * 1_000_000
            session.parked = Parked(reply_to, poll, until_ns)
            return None

    def expire(self) -> list[Reply]:
        """Answers of the polls whose time is up, or for which there is something to say now."""
        replies: list[Reply] = []
        with self._lock:
            now_ns = self._clock.boot_ns()
            for session in self._sessions.values():
                parked = session.parked
                if parked is None:
                    continue
                answer: Answer | None = self._news(session, parked.poll)
                if answer is None and now_ns >= parked.until_ns:
                    answer = self._nothing(parked.poll)
                if answer is not None:
                    session.parked = None
                    replies.append((parked.reply_to, answer))
        return replies

    def take_lines(self) -> list[Record]:
        """What is to be added to the record since the last call."""
        with self._lock:
            lines, self._lines = self._lines, []
            return lines

    def keep_lines(self, lines: list[Record]) -> None:
        """They could not be added; the next `take_lines` has them again."""
        with self._lock:
            self._lines[:0] = lines

    def _suspect(self, hello: Hello, session: Session | None, seen: Seen) -> None:
        """Design §2.4: after a long silence, or twice at once, a node may be a stolen card."""
        silent_ms = self._utc_ms() - seen.at_ms
        if session is not None and hello.boot in session.former:
            reason = "two machines use its identity: a boot came back after another one began"
        elif seen.at_ms and silent_ms > self._silent_ms:
            reason = f"came back after {silent_ms / 3_600_000:.1f} hours of silence"
        else:
            return
        if self._office.plan.nodes[hello.node].status is Status.JOINED:
            now_ms = self._utc_ms()
            self._store.nodes.set_status(hello.node, Status.QUARANTINED, reason, now_ms=now_ms)
            self._office.refresh()
            self._tell("quarantined", hello, reason=reason)

    def _settle(self, session: Session, poll: Poll) -> None:
        """What the node made of the last answer. Neither yes nor no: it never came."""
        before = self._attendance.last(poll.node)
        self._attendance.heard(
            poll.node,
            at_ms=self._utc_ms(),
            boot=poll.boot,
            list_id=poll.list_id,
            list_version=poll.list_version,
            lease_left_s=poll.lease_left_s,
            refused=poll.refused,
        )
        if session.wiped and not poll.list_id:
            session.wiped = False
            self._store.deployments.wiped(poll.node, now_ms=self._utc_ms())
            self._office.refresh()
            self._tell("wiped", poll)
        granted = session.granted
        if granted is None or not session.unsettled:
            return
        session.unsettled = False
        named: dict[str, object] = {"list_id": granted.list_id, "list_version": granted.version}
        in_use = (poll.list_id, poll.list_version)
        if poll.refused:
            session.retry_ns = self._clock.boot_ns() + _RETRY_NS
            self._tell("refused", poll, **named, reason=poll.refused)
            self._write("list-refused", poll, **named, reason=poll.refused)
        elif in_use == (granted.list_id, granted.version):
            self._tell("accepted", poll, **named)
            if (before.list_id, before.list_version) != in_use:
                self._write("list-accepted", poll, **named)

    def _news(self, session: Session, poll: Poll) -> Offer | Deny | None:
        """What there is to say to a node that has this in use."""
        plan, now_ns = self._office.plan, self._clock.boot_ns()
        row = plan.nodes.get(poll.node)
        if row is None or not plan.admits(poll.node):
            return self._offers.wipe(poll)  # revoked while it waited: a last word
        if poll.node in plan.wipes:
            return self._end("wipe", session, poll, now_ns)
        if row.status is Status.QUARANTINED:
            return None
        wanted = plan.wanted(poll.node, self._utc_ms())
        if wanted is None:
            return self._end("withdraw", session, poll, now_ns) if poll.list_id else None
        return self._grant(session, poll, wanted, now_ns)

    def _grant(
        self, session: Session, poll: Poll, wanted: Wanted, now_ns: int
    ) -> Offer | Deny | None:
        row, deployment = wanted.row, wanted.deployment
        terms = Terms(row.list_id, row.version, deployment.until_ms, deployment.lease_s)
        if session.granted == terms:
            in_use = (poll.list_id, poll.list_version) == (row.list_id, row.version)
            if in_use and (session.renew_ns is None or now_ns < session.renew_ns):
                return None
            if now_ns < session.retry_ns:
                return None
        left_s = -((self._utc_ms() - deployment.until_ms) // 1000)  # rounded up
        lease_s = min(deployment.lease_s, left_s)
        try:
            offer = self._offers.grant(wanted, to=session.hello, poll=poll, lease_s=lease_s)
        except (ControllerError, WatchlistError) as e:  # the node's key is none
            session.granted, session.retry_ns = terms, now_ns + _RETRY_NS
            return Deny(str(e)[:REASON_MAX_CHARS])
        session.granted, session.unsettled = terms, True
        session.retry_ns = now_ns + _AGAIN_NS
        session.renew_ns = now_ns + lease_s * _S // 2 if lease_s < left_s else None
        named = {"list_id": row.list_id, "list_version": row.version}
        self._attendance.heard(
            poll.node,
            at_ms=self._attendance.last(poll.node).at_ms,
            offered_id=row.list_id,
            offered_version=row.version,
        )
        self._tell("pushed", poll, **named, lease_s=lease_s)
        return offer

    def _end(self, kind: str, session: Session, poll: Poll, now_ns: int) -> Offer | None:
        """Say once that a list is to be closed, and again if the node goes on with it."""
        if session.granted is None and now_ns < session.retry_ns:
            return None
        session.granted, session.unsettled = None, False
        session.retry_ns = now_ns + _AGAIN_NS
        if kind == "wipe":
            session.wiped = True
            self._tell("wiping", poll)
            return self._offers.wipe(poll)
        self._tell("withdrawn", poll, list_id=poll.list_id)
        self._write("list-withdrawn", poll, list_id=poll.list_id, list_version=poll.list_version)
        return self._offers.withdraw(poll)

    def _nothing(self, poll: Poll) -> Ack | Deny:
        row = self._office.plan.nodes[poll.node]
        if row.status is Status.QUARANTINED:
            return Deny(f"quarantined: {row.reason}"[:REASON_MAX_CHARS])
        return Ack()

    def _tell(self, kind: str, of: Hello | Poll, **fields: object) -> None:
        self._notify(event(kind, node=of.node, boot=of.boot, **fields))

    def _write(self, kind: str, poll: Poll, **about: object) -> None:
        self._lines.append(Record(self._utc_ms(), kind, {"node": poll.node, **about}))


def _signed(hello: Hello, watch_key: bytes) -> bool:
    part = hello_signed_part(hello.node, hello.boot, hello.grant_key, hello.model)
    try:
        Ed25519PublicKey.from_public_bytes(watch_key).verify(hello.signature, part)
    except (InvalidSignature, ValueError):
        return False
    return True
