"""The watch service's pulse: measures itself, shows the state, reports it when due."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from appliance import __version__
from appliance.errors import LinkError
from appliance.interfaces import Clock, Link, Outbox
from appliance.link.question import ask
from appliance.services.beacon import Beacon
from appliance.services.capture import Capture
from appliance.system.erasure import Ledger
from appliance.system.health import Vitals, judge
from appliance.system.memory import rss_bytes
from appliance.types import NodeState
from appliance.watchlist.match import Watchlist
from appliance.wire import Ack, Health

log = logging.getLogger(__name__)

_FPS_WINDOW_S = 3.0
_SHOW_EVERY_S = 1.0
_ANSWER_S = 3.0


@dataclass(slots=True)
class Counters:
    """What the watch thread counts and everybody reads."""

    frames: int = 0
    outbox_full: bool = False
    alerted_ns: int | None = None


class Controllers(Protocol):
    """What the pulse asks of link/downlink.py."""

    answered_ns: int | None
    """CLOCK_BOOTTIME of a controller's last answer, None before it."""
    refused: str
    """Why the last list was not taken, "" if it was."""


class Pulse:
    """Called a few times a second by one worker.

    Args:
        node: who reports.
        boot: 16 bytes, made at this start of the watch service.
        beacon: shows the state.
        link: health goes there.
        controllers: how the link to them is.
        current: the list in use.
        accelerator: what runs the models.
        soc_temp_c: of the board, None where it cannot be read.
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
        beacon: Beacon,
        link: Link,
        controllers: Controllers,
        current: Callable[[], Watchlist | None],
        accelerator: Callable[[], str],
        soc_temp_c: Callable[[], float | None],
        health_s: float,
    ) -> None:
        self._node, self._boot, self._clock = node, boot, clock
        self._ledger, self._counters, self._capture = ledger, counters, capture
        self._outbox, self._beacon, self._link = outbox, beacon, link
        self._controllers, self._current = controllers, current
        self._accelerator, self._soc_temp_c = accelerator, soc_temp_c
        self._health_ns = round(health_s * 1e9)
        self._sent_ns: int | None = None
        self._showed_ns: int | None = None
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
        # Not lit: the indicator has gone, and its return is to be noticed soon.
        if changed or not self._beacon.lit or _due(self._showed_ns, now_ns, _SHOW_EVERY_S * 1e9):
            self._showed_ns = now_ns
            self._beacon.show(state)
        if changed or _due(self._sent_ns, now_ns, self._health_ns):
            self.report()

    def report(self) -> None:
        """Send one health message; an unreachable controller is no fault of the node's."""
        self._sent_ns = self._clock.boot_ns()
        try:
            ask(self._link, self._health(), Ack, _ANSWER_S)
        except LinkError as e:
            log.debug("health not delivered: %s", e)

    def _vitals(self, now_ns: int) -> Vitals:
        answered_ns = self._controllers.answered_ns or 0
        alerted_ns = self._counters.alerted_ns
        return Vitals(
            balanced=self._ledger.snapshot().balanced,
            outbox_full=self._counters.outbox_full,
            asked=answered_ns > 0,
            list_open=self._current() is not None,
            list_refused=bool(self._controllers.refused),
            camera_on=self._capture.since_ns is not None,
            frames=self._counters.frames,
            since_answer_s=(now_ns - answered_ns) / 1e9,
            since_alert_s=math.inf if alerted_ns is None else (now_ns - alerted_ns) / 1e9,
        )

    def _fps(self) -> float:
        (then_ns, before), (now_ns, frames) = self._ticks[0], self._ticks[-1]
        return (frames - before) / (now_ns - then_ns) * 1e9 if now_ns > then_ns else 0.0

    def _lease_left_s(self, watchlist: Watchlist | None) -> int:
        if watchlist is None:
            return 0
        return max(0, (watchlist.lease_end_ns - self._clock.boot_ns()) // 1_000_000_000)

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
            lease_left_s=self._lease_left_s(watchlist),
            accelerator=self._accelerator(),
            soc_temp_c=self._soc_temp_c(),
            watch_version=__version__,
        )


def _due(last_ns: int | None, now_ns: int, every_ns: float) -> bool:
    return last_ns is None or now_ns - last_ns >= every_ns
