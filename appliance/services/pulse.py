"""The watch service's pulse: judges how the node is, shows it, and reports it when due."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from appliance import __version__
from appliance.errors import LinkError
from appliance.interfaces import Clock, Link, Outbox
from appliance.link.question import ask
from appliance.services.beacon import Beacon
from appliance.services.capture import Capture
from appliance.services.vitals import Counters, Monitor
from appliance.system.erasure import Ledger
from appliance.system.health import Vitals, flags, judge, wants_service
from appliance.system.memory import rss_bytes
from appliance.types import NodeState
from appliance.watchlist.match import Watchlist
from appliance.wire import FLAGS_MAX, Ack, Health

log = logging.getLogger(__name__)

_SHOW_EVERY_S = 1.0
_ANSWER_S = 5.0
_WAIT_S = 0.25


class Pulse:
    """`step` belongs in one worker, `tell` in another: lamps must not wait for a controller.

    Args:
        node: who reports.
        boot: 16 bytes, made at this start of the watch service.
        monitor: measures.
        beacon: shows the state.
        link: health goes there.
        current: the list in use.
        accelerator: what runs the models.
        health_s: between two health messages; a change of state sends one at once.
    """

    def __init__(
        self,
        *,
        node: str,
        boot: bytes,
        clock: Clock,
        ledger: Ledger,
        counters: Counters,
        capture: Capture,
        outbox: Outbox,
        monitor: Monitor,
        beacon: Beacon,
        link: Link,
        current: Callable[[], Watchlist | None],
        accelerator: Callable[[], str],
        health_s: float,
    ) -> None:
        self._node, self._boot, self._clock = node, boot, clock
        self._ledger, self._counters, self._capture = ledger, counters, capture
        self._outbox, self._monitor, self._beacon, self._link = outbox, monitor, beacon, link
        self._current, self._accelerator = current, accelerator
        self._health_ns = round(health_s * 1e9)
        self._sent_ns: int | None = None
        self._showed_ns: int | None = None
        self._state = NodeState.STARTING
        self._vitals = monitor.look(current())
        self._news = threading.Event()

    def step(self) -> None:
        """Judge and show; called a few times a second."""
        now_ns = self._clock.boot_ns()
        self._vitals = vitals = self._monitor.look(self._current())
        state = judge(vitals)
        changed = state is not self._state
        if changed:
            log.info("state %s", state)
            self._state = state
        # Not lit: the indicator has gone, and its return is to be noticed soon.
        if changed or not self._beacon.lit or _due(self._showed_ns, now_ns, _SHOW_EVERY_S * 1e9):
            self._showed_ns = now_ns
            self._beacon.show(state, hint=wants_service(vitals))
        if changed or _due(self._sent_ns, now_ns, self._health_ns):
            self._news.set()

    def tell(self) -> None:
        """Report, if it is time or the state has changed; waits a little for either."""
        if self._news.wait(_WAIT_S):
            self._news.clear()
            self.report()

    def report(self) -> None:
        """Send one health message; an unreachable controller is no fault of the node's."""
        self._sent_ns = self._clock.boot_ns()
        try:
            ask(self._link, self._health(self._vitals), Ack, _ANSWER_S)
        except LinkError as e:
            log.debug("health not delivered: %s", e)

    def _health(self, vitals: Vitals) -> Health:
        watchlist, ledger = self._current(), self._ledger.snapshot()
        now_ns = self._clock.boot_ns()
        return Health(
            node=self._node,
            boot=self._boot,
            state=self._state,
            camera_since_boot_ns=self._capture.since_ns,
            frames=self._counters.frames,
            dropped=self._capture.dropped,
            fps=self._monitor.fps,
            faces_seen=ledger.faces_seen,
            faces_erased=ledger.faces_erased,
            faces_alerted=ledger.faces_alerted,
            faces_held=ledger.faces_held,
            erased_p50_ms=ledger.frames.p50_ms,
            erased_p99_ms=ledger.frames.p99_ms,
            erased_max_ms=ledger.frames.max_ms,
            vectors_p99_ms=ledger.vectors.p99_ms,
            list_id=watchlist.list_id if watchlist else "",
            list_version=watchlist.version if watchlist else 0,
            subjects=len(watchlist.subjects) if watchlist else 0,
            outbox=self._outbox.depth,
            rss_mib=rss_bytes() / 2**20,
            lease_left_s=watchlist.lease_left_s(now_ns) if watchlist else 0,
            accelerator=self._accelerator(),
            soc_temp_c=self._monitor.thermal.celsius,
            watch_version=__version__,
            flags=flags(vitals)[:FLAGS_MAX],
            faces_unsearchable=self._counters.unsearchable,
        )


def _due(last_ns: int | None, now_ns: int, every_ns: float) -> bool:
    return last_ns is None or now_ns - last_ns >= every_ns
