"""What there is to say to a node that polls, in this order; nothing leaves it waiting.

1. it was revoked while it waited    a stamp to wipe: a last word
2. an order to wipe                  the same, until a hello with a new key shows that it was done
3. quarantined                       nothing; when its time is up the poll is told why
4. no list is meant for it           a stamp that withdraws the one in use, if any
5. a list is meant for it            stamp and grant, unless it is in use and its lease still long
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.controller.attendance import Attendance
from appliance.controller.events import Notify, event
from appliance.controller.lines import Lines
from appliance.controller.offers import Offers
from appliance.controller.office import Office
from appliance.controller.plan import Wanted
from appliance.controller.session import Session, Terms
from appliance.controller.store import Seen, Status
from appliance.errors import ControllerError, WatchlistError
from appliance.interfaces import Clock
from appliance.wire import REASON_MAX_CHARS, Ack, Deny, Hello, Offer, Poll

S = 1_000_000_000
RETRY_NS = 60 * S
"""After a refusal, until the same list is offered again: a node's clock may have been wrong."""
_AGAIN_NS = 1 * S
"""After an answer that may have been lost, until it is given again."""


class News:
    """Used by one thread at a time: polls.py has the lock.

    Args:
        office: has the plan in force.
        attendance: told what was offered.
        offers: makes stamps and grants.
        lines: for the record.
        clock: for leases.
        utc_ms: wall clock.
        notify: told of each event.
    """

    def __init__(
        self,
        office: Office,
        *,
        attendance: Attendance,
        offers: Offers,
        lines: Lines,
        clock: Clock,
        utc_ms: Callable[[], int],
        notify: Notify,
    ) -> None:
        self._office, self._attendance, self._offers = office, attendance, offers
        self._lines, self._clock, self._utc_ms, self._notify = lines, clock, utc_ms, notify

    def of(self, session: Session, poll: Poll) -> Offer | Deny | None:
        """What to say to a node that has this in use; None for nothing."""
        plan, now_ns = self._office.plan, self._clock.boot_ns()
        row = plan.nodes.get(poll.node)
        if row is None or not plan.admits(poll.node):
            return self._offers.wipe(poll)
        if poll.node in plan.wipes:
            return self._end("wipe", session, poll, now_ns)
        if row.status is Status.QUARANTINED:
            return None
        wanted = plan.wanted(poll.node, self._utc_ms())
        if wanted is None:
            return self._end("withdraw", session, poll, now_ns) if poll.list_id else None
        return self._grant(session, poll, wanted, now_ns)

    def nothing(self, poll: Poll) -> Ack | Deny:
        """What a poll is told when its time is up."""
        row = self._office.plan.nodes[poll.node]
        if row.status is Status.QUARANTINED:
            return Deny(f"quarantined: {row.reason}"[:REASON_MAX_CHARS])
        return Ack()

    def tell(self, kind: str, of: Hello | Poll | Seen, **fields: object) -> None:
        """An event of a node's."""
        self._notify(event(kind, node=of.node, boot=of.boot, **fields))

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
            session.granted, session.retry_ns = terms, now_ns + RETRY_NS
            return Deny(str(e)[:REASON_MAX_CHARS])
        session.granted, session.unsettled = terms, True
        session.retry_ns = now_ns + _AGAIN_NS
        session.renew_ns = now_ns + lease_s * S // 2 if lease_s < left_s else None
        self._attendance.heard(
            poll.node,
            at_ms=self._attendance.last(poll.node).at_ms,
            offered_id=row.list_id,
            offered_version=row.version,
        )
        named = {"list_id": row.list_id, "list_version": row.version}
        self.tell("pushed", poll, **named, lease_s=lease_s)
        return offer

    def _end(self, kind: str, session: Session, poll: Poll, now_ns: int) -> Offer | None:
        """Say that a list is to be closed, and again if the node goes on with it."""
        if session.granted is None and now_ns < session.retry_ns:
            return None
        session.granted, session.unsettled = None, False
        session.retry_ns = now_ns + _AGAIN_NS
        if kind == "wipe":
            session.wiped = session.hello
            self.tell("wiping", poll)
            return self._offers.wipe(poll)
        self.tell("withdrawn", poll, list_id=poll.list_id)
        named = {"list_id": poll.list_id, "list_version": poll.list_version}
        self._lines.add("list-withdrawn", self._utc_ms(), node=poll.node, **named)
        return self._offers.withdraw(poll)
