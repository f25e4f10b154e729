"""The node's pulse: measures itself, shows the state on the lamps, reports it when due."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from appliance.errors import LinkError
from appliance.interfaces import Clock, Outbox
from appliance.link.downlink import Downlink
from appliance.link.uplink import Uplink
from appliance.services.capture import Capture
from appliance.system.erasure import Ledger
from appliance.system.health import Vitals, judge
from appliance.system.memory import rss_bytes
from appliance.types import NodeState
from appliance.watchlist.match import Watchlist
from appliance.wire import Health

log = logging.getLogger(__name__)

_FPS_WINDOW_S = 3.0


@dataclass(slots=True)
class Counters:
    """What the watch thread counts and everybody reads."""

    frames: int = 0
    outbox_full: bool = False
    alerted_ns: int | None = None


class Pulse:
    """Called a few times a second by one worker.

    Args:
        show: told every new state; drives the lamps.
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
        uplink: Uplink,
        downlink: Downlink,
        current: Callable[[], Watchlist | None],
        show: Callable[[NodeState], None],
        health_s: float,
    ) -> None:
        self._node, self._boot, self._clock = node, boot, clock
        self._ledger, self._counters, self._capture = ledger, counters, capture
        self._outbox, self._uplink, self._downlink = outbox, uplink, downlink
        self._current, self._show = current, show
        self._health_ns = round(health_s * 1e9)
        self._sent_ns: int | None = None
        self._state = NodeState.STARTING
        self._ticks: deque[tuple[int, int]] = deque()

    def step(self) -> None:
        """Measure, show, and report if it is time or the state has changed."""
        now_ns = self._clock.boot_ns()
        self._ticks.append((now_ns, self._counters.frames))
        while now_ns - self._ticks[0][0] > _FPS_WINDOW_S * 1e9:
            self._ticks.popleft()
        state = judge(self._vitals(now_ns))
        changed = state is not self._state
        if changed:
            log.info("state %s", state)
            self._state = state
            self._show(state)
        if changed or self._sent_ns is None or now_ns - self._sent_ns >= self._health_ns:
            self.report()

    def report(self) -> None:
        """Send one health message; an unreachable controller is no fault of the node's."""
        self._sent_ns = self._clock.boot_ns()
        try:
            self._uplink.send_health(self._health())
        except LinkError as e:
            log.debug("health not delivered: %s", e)

    def _vitals(self, now_ns: int) -> Vitals:
        answered_ns = max(self._uplink.answered_ns or 0, self._downlink.answered_ns or 0)
        alerted_ns = self._counters.alerted_ns
        return Vitals(
            balanced=self._ledger.snapshot().balanced,
            outbox_full=self._counters.outbox_full,
            asked=answered_ns > 0,
            list_open=self._current() is not None,
            list_refused=bool(self._downlink.refused),
            camera_on=self._capture.since_ns is not None,
            frames=self._counters.frames,
            since_answer_s=(now_ns - answered_ns) / 1e9,
            since_alert_s=math.inf if alerted_ns is None else (now_ns - alerted_ns) / 1e9,
        )

    def _fps(self) -> float:
        (then_ns, before), (now_ns, frames) = self._ticks[0], self._ticks[-1]
        return (frames - before) / (now_ns - then_ns) * 1e9 if now_ns > then_ns else 0.0

    def _health(self) -> Health:
        watchlist, ledger = self._current(), self._ledger.snapshot()
        return Health(
            node=self._node,
            boot=self._boot,
            state=self._state,
            camera_since_boot_ns=self._capture.since_ns,
            frames=self._counters.frames,
            dropped=self._capture.dropped,
            fps=self._fps(),
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
        )
