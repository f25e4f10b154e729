"""The controller without its sockets: everything that answers, put together once."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.alerts.seal import AlertPrivateKey
from appliance.controller.attendance import Attendance
from appliance.controller.bundles import Bundles
from appliance.controller.endpoints import Endpoints
from appliance.controller.events import Notify
from appliance.controller.joining import Issue, Joining
from appliance.controller.lines import Lines
from appliance.controller.news import News
from appliance.controller.offers import Offers
from appliance.controller.office import Office
from appliance.controller.polls import Polls
from appliance.controller.reception import Reception
from appliance.controller.store import Store
from appliance.controller.upgrades import Upgrades
from appliance.interfaces import Clock


class Desk:
    """What answers nodes.

    Args:
        store: what is kept.
        online_key: signs stamps.
        alert_key: opens alerts.
        issue: makes certificates.
        clock: for leases and parked polls.
        utc_ms: wall clock.
        silent_hours: a node that comes back after a longer silence is quarantined.
        notify: told of each event, by several threads.
        bundles: gives out updates; None gives out none.

    Attributes:
        office: the plan in force.
        attendance: what was last heard of each node.
        lines: what is to be added to the record.
        upgrades: answers what is asked about updates.
        polls, reception, joining: answer their kind of question.
        endpoints: answers all of a node's.
    """

    def __init__(
        self,
        store: Store,
        *,
        online_key: Ed25519PrivateKey,
        alert_key: AlertPrivateKey,
        issue: Issue,
        clock: Clock,
        utc_ms: Callable[[], int],
        silent_hours: float,
        notify: Notify,
        bundles: Bundles | None = None,
    ) -> None:
        self.office = Office(store)
        self.attendance = Attendance(store.nodes)
        self.attendance.expect(self.office.plan.nodes)
        self.lines = Lines()
        news = News(
            self.office,
            attendance=self.attendance,
            offers=Offers(online_key, utc_ms),
            lines=self.lines,
            clock=clock,
            utc_ms=utc_ms,
            notify=notify,
        )
        self.polls = Polls(
            self.office,
            store,
            attendance=self.attendance,
            news=news,
            lines=self.lines,
            clock=clock,
            utc_ms=utc_ms,
            silent_hours=silent_hours,
        )
        self.reception = Reception(
            self.office, store.alerts, alert_key=alert_key, utc_ms=utc_ms, notify=notify
        )
        self.joining = Joining(
            self.office,
            store,
            attendance=self.attendance,
            issue=issue,
            utc_ms=utc_ms,
            notify=notify,
        )
        self.upgrades = Upgrades(
            self.office,
            store.rollouts,
            bundles=bundles,
            clock=clock,
            utc_ms=utc_ms,
            notify=notify,
        )
        self.upgrades.prepare()
        self.endpoints = Endpoints(
            self.office,
            store,
            polls=self.polls,
            reception=self.reception,
            attendance=self.attendance,
            upgrades=self.upgrades,
            issue=issue,
            clock=clock,
            utc_ms=utc_ms,
            notify=notify,
        )
