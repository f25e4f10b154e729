"""What the controller answers a node, without a socket: a question and who asked, an answer out.

Every question is held against the certificate that it came under, and against the plan: a name
that is not the asker's own, a node that is unknown or revoked, gets a Deny and nothing else.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

from appliance.controller import identity
from appliance.controller.attendance import Attendance
from appliance.controller.events import Notify, event, event_of
from appliance.controller.joining import Issue
from appliance.controller.office import Office
from appliance.controller.polls import Polls
from appliance.controller.reception import Reception
from appliance.controller.store import Status, Store
from appliance.controller.upgrades import Upgrades
from appliance.errors import ControllerError, IdentityError, StoreError, WireError
from appliance.interfaces import Clock
from appliance.watchlist.pieces import DIGEST_BYTES
from appliance.wire import (
    REASON_MAX_CHARS,
    Ack,
    Answer,
    Deny,
    Fetch,
    Health,
    Hello,
    Join,
    Piece,
    Poll,
    Pull,
    Renew,
    Renewed,
    Report,
    Request,
    Show,
    Upgrade,
)

log = logging.getLogger(__name__)

_PIECES_HELD = 256
"""Of ciphertext, 32 MiB: the same for every node."""
_RENEW_NS = 60 * 1_000_000_000
"""Between two renewals of one node: each leaves a serial in the store for ever."""


class Endpoints:
    """Every question's answer but Join's. Used by one receiving thread.

    Args:
        office: has the plan in force.
        store: has the pieces of lists, and keeps serials.
        polls: answers hellos and polls.
        reception: takes reports.
        attendance: told of every sign of life.
        upgrades: answers what is asked about updates.
        issue: makes certificates.
        clock: when a question came.
        utc_ms: wall clock.
        notify: told of each event.
    """

    def __init__(
        self,
        office: Office,
        store: Store,
        *,
        polls: Polls,
        reception: Reception,
        attendance: Attendance,
        upgrades: Upgrades,
        issue: Issue,
        clock: Clock,
        utc_ms: Callable[[], int],
        notify: Notify,
    ) -> None:
        self._office, self._store = office, store
        self._polls, self._reception, self._attendance = polls, reception, attendance
        self._upgrades = upgrades
        self._issue, self._clock, self._utc_ms, self._notify = issue, clock, utc_ms, notify
        self._pieces: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._renewed_ns: dict[str, int] = {}

    def answer(self, request: Request, reply_to: bytes, peer: str | None) -> Answer | None:
        """The answer, or None: it comes later, or never.

        Args:
            request: what was asked.
            reply_to: where an answer that comes later goes.
            peer: common name of the certificate that it was asked under.

        Raises:
            WireError: it asks in another's name, or what a node never asks a controller.
        """
        if isinstance(request, Join | Show) or request.node != peer:
            claimed = "a stranger" if isinstance(request, Join | Show) else request.node
            raise WireError(f"{peer} asks as {claimed}: not its own question")
        if not self._office.admits(request.node):
            return Deny("not a node of this fleet, or revoked")
        try:
            return self._dispatch(request, reply_to)
        except StoreError as e:
            log.error("a question was not answered: %s", e)  # noqa: TRY400 - the line says it all
            return Deny("the controller cannot reach its store; ask again")
        except (ControllerError, IdentityError) as e:
            return Deny(str(e)[:REASON_MAX_CHARS])

    def forget_pieces(self) -> None:
        """After a list was destroyed or replaced."""
        self._pieces.clear()

    def _dispatch(
        self,
        request: Hello | Poll | Report | Health | Fetch | Renew | Upgrade | Pull,
        reply_to: bytes,
    ) -> Answer | None:
        received_ns = self._clock.boot_ns()
        # A hello is looked at more closely. What the link service asks about updates by itself is
        # no sign of a watch service, neither of its silence nor of its life.
        if not isinstance(request, Hello | Upgrade | Pull):
            self._polls.mind_silence(request.node)
        answer: Answer | None
        match request:
            case Hello():
                answer = self._polls.greet(request)
            case Poll():
                answer = self._polls.poll(request, reply_to)
            case Report():
                answer = self._take(request, reply_to, received_ns)
            case Health():
                answer = self._hear(request, received_ns)
            case Fetch():
                answer = self._fetch(request)
            case Renew():
                answer = self._renew(request, received_ns)
            case Upgrade():
                answer = self._upgrades.answer(request)
            case Pull():
                answer = self._upgrades.part(request)
        return answer

    def _take(self, report: Report, reply_to: bytes, received_ns: int) -> Answer | None:
        self._attendance.heard(report.node, at_ms=self._utc_ms())
        if self._reception.take(report, reply_to, received_ns):
            return None
        return Deny("too many reports wait to be stored; ask again")

    def _hear(self, health: Health, received_ns: int) -> Answer:
        self._attendance.heard(health.node, at_ms=self._utc_ms(), health=health)
        self._notify(event_of("health", health, received_boot_ns=received_ns))
        return Ack()

    def _fetch(self, fetch: Fetch) -> Answer:
        plan = self._office.plan
        wanted = plan.wanted(fetch.node, self._utc_ms())
        asked = (fetch.list_id, fetch.list_version)
        if (
            wanted is None
            or plan.nodes[fetch.node].status is not Status.JOINED
            or asked != (wanted.row.list_id, wanted.row.version)
        ):
            return Deny("this list is not meant for this node")
        key = (*asked, fetch.index)
        # A number beyond the list is not looked for: it may be beyond what a database can count.
        there = fetch.index < len(wanted.row.digests) // DIGEST_BYTES
        sealed = (self._pieces.get(key) or self._store.lists.piece(*key)) if there else None
        if sealed is None:
            return Deny(f"the list has no piece {fetch.index}")
        self._pieces[key] = sealed
        if len(self._pieces) > _PIECES_HELD:
            self._pieces.popitem(last=False)
        return Piece(fetch.index, sealed)

    def _renew(self, renew: Renew, received_ns: int) -> Answer:
        before_ns = self._renewed_ns.get(renew.node)
        if before_ns is not None and received_ns - before_ns < _RENEW_NS:
            return Deny("renewed a moment ago; ask again in a minute")
        now_ms = self._utc_ms()
        at = datetime.fromtimestamp(now_ms / 1000, UTC)
        certificate = self._issue(renew.node, renew.csr, at)
        self._store.nodes.certified(renew.node, certificate.serial_number, now_ms=now_ms)
        self._renewed_ns[renew.node] = received_ns
        self._notify(event("renewed", node=renew.node))
        return Renewed(identity.pem(certificate))
