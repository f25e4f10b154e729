"""Hellos and polls: greeted, settled, answered at once or parked.

A poll is answered at once when there is something to say (news.py), and parked when there is not:
until its time is up or the plan has changed, both of which `expire` looks for. What is known of a
boot may be lost: a node that is told "unknown boot" says hello again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.controller.attendance import Attendance
from appliance.controller.lines import Lines
from appliance.controller.news import RETRY_NS, News
from appliance.controller.office import Office
from appliance.controller.session import Parked, Session
from appliance.controller.store import Seen, Status, Store
from appliance.interfaces import Clock
from appliance.wire import Answer, Deny, Hello, Poll, Welcome, hello_signed_part, printable

Reply = tuple[bytes, Answer]
"""Where to, as it was received, and what."""

_LOOK_NS = 1_000_000_000


class Polls:
    """Thread-safe; one question is answered at a time.

    Args:
        office: has the plan in force.
        store: for wipes that were done, and quarantine.
        attendance: told of each poll.
        news: knows what to say.
        lines: for the record.
        clock: for parked polls.
        utc_ms: wall clock.
        silent_hours: a node that comes back after a longer silence is quarantined.
    """

    def __init__(
        self,
        office: Office,
        store: Store,
        *,
        attendance: Attendance,
        news: News,
        lines: Lines,
        clock: Clock,
        utc_ms: Callable[[], int],
        silent_hours: float,
    ) -> None:
        self._office, self._store, self._attendance = office, store, attendance
        self._news, self._lines, self._clock, self._utc_ms = news, lines, clock, utc_ms
        self._silent_ms = round(silent_hours * 3_600_000)
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._heard_ns: dict[str, int] = {}
        self._looked_at, self._looked_ns = office.plan, clock.boot_ns()

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
        self._news.tell("hello", hello, model=hello.model)
        return Welcome(self._utc_ms())

    def poll(self, poll: Poll, reply_to: bytes) -> Answer | None:
        """Answer a poll, or park it and return None."""
        with self._lock:
            session = self._sessions.get(poll.node)
            if session is None or session.hello.boot != poll.boot:
                return Deny("unknown boot")
            self._settle(session, poll)
            answer = self._news.of(session, poll)
            if answer is not None or poll.wait_ms == 0:
                return answer or self._news.nothing(poll)
            # A poll parked before was given up by its node, which asks one at a time.
            until_ns = self._clock.boot_ns() + poll.wait_ms * 1_000_000
            session.parked = Parked(reply_to, poll, until_ns)
            return None

    def mind_silence(self, node: str) -> None:
        """Put a node that was silent for long into quarantine, before any question but a hello.

        Otherwise its report or health would make the hello behind it look harmless.
        """
        with self._lock:
            seen = self._attendance.last(node)
            self._mind_silence(seen, seen)

    def expire(self) -> list[Reply]:
        """Answers of the polls whose time is up, or for which there is something to say now."""
        replies: list[Reply] = []
        with self._lock:
            now_ns, plan = self._clock.boot_ns(), self._office.plan
            # Ten thousand polls may be parked: whoever's time is not up is looked at when the
            # plan has changed, and once a second for leases and ends.
            all_of_them = plan is not self._looked_at or now_ns - self._looked_ns >= _LOOK_NS
            if all_of_them:
                self._looked_at, self._looked_ns = plan, now_ns
            for session in self._sessions.values():
                parked = session.parked
                if parked is None or (now_ns < parked.until_ns and not all_of_them):
                    continue
                answer: Answer | None = self._news.of(session, parked.poll)
                if answer is None and now_ns >= parked.until_ns:
                    answer = self._news.nothing(parked.poll)
                if answer is not None:
                    session.parked = None
                    replies.append((parked.reply_to, answer))
        return replies

    def _suspect(self, hello: Hello, session: Session | None, seen: Seen) -> None:
        """Design §2.4: after a long silence, or twice at once, a node may be a stolen card."""
        if session is not None and hello.boot in session.former:
            reason = "two machines use its identity: a boot came back after another one began"
            self._quarantine(hello, reason)
        else:
            self._mind_silence(hello, seen)

    def _mind_silence(self, of: Hello | Seen, seen: Seen) -> None:
        silent_ms = self._silent_for(seen) if seen.at_ms else 0
        if silent_ms > self._silent_ms:
            self._quarantine(of, f"came back after {silent_ms / 3_600_000:.1f} hours of silence")
        self._heard_ns[of.node] = (
            self._clock.boot_ns()
        )  # after it: a store that fails is asked again

    def _quarantine(self, of: Hello | Seen, reason: str) -> None:
        if self._office.plan.nodes[of.node].status is not Status.JOINED:
            return
        now_ms = self._utc_ms()
        self._store.nodes.set_status(of.node, Status.QUARANTINED, reason, now_ms=now_ms)
        self._office.refresh()
        self._news.tell("quarantined", of, reason=reason)

    def _silent_for(self, seen: Seen) -> int:
        """Milliseconds since a node was heard, by this controller or another at this store.

        The wall clock is asked only about what this process has not heard itself: one that jumps
        must not put a whole fleet into quarantine.
        """
        heard_ns, now_ms = self._heard_ns.get(seen.node), self._utc_ms()
        if heard_ns is None:
            silent_ms = now_ms - seen.at_ms
        else:
            silent_ms = (self._clock.boot_ns() - heard_ns) // 1_000_000
        if silent_ms <= self._silent_ms:
            return silent_ms
        row = self._store.nodes.get(seen.node)
        return now_ms - max(seen.at_ms, 0 if row is None else row.seen.at_ms)

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
            refused=printable(poll.refused),
        )
        if session.wiped not in (None, session.hello) and not poll.list_id:
            session.wiped = None
            self._store.deployments.wiped(poll.node, now_ms=self._utc_ms())
            self._office.refresh()
            self._news.tell("wiped", poll)
        granted = session.granted
        if granted is None or not session.unsettled:
            return
        session.unsettled = False
        named = {"list_id": granted.list_id, "list_version": granted.version}
        in_use = (poll.list_id, poll.list_version)
        if poll.refused:
            session.retry_ns = self._clock.boot_ns() + RETRY_NS
            self._news.tell("refused", poll, **named, reason=poll.refused)
            self._write("list-refused", poll, **named, reason=poll.refused)
        elif in_use == (granted.list_id, granted.version):
            self._news.tell("accepted", poll, **named)
            if (before.list_id, before.list_version) != in_use:
                self._write("list-accepted", poll, **named)

    def _write(self, kind: str, poll: Poll, **about: object) -> None:
        self._lines.add(kind, self._utc_ms(), node=poll.node, **about)


def _signed(hello: Hello, watch_key: bytes) -> bool:
    part = hello_signed_part(hello.node, hello.boot, hello.grant_key, hello.model)
    try:
        Ed25519PublicKey.from_public_bytes(watch_key).verify(hello.signature, part)
    except (InvalidSignature, ValueError):
        return False
    return True
