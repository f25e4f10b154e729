"""One second's measurements of the node, for health.py to judge."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.interfaces import Clock
from appliance.services.capture import Capture
from appliance.system import data
from appliance.system.erasure import Ledger
from appliance.system.health import Vitals, too_hot
from appliance.system.thermal import SYS, Thermal, read
from appliance.watchlist.match import Watchlist

UPDATING = Path("/run/picket-update")
"""There for as long as picket-update.service runs; only root can make it."""
_FPS_WINDOW_S = 3.0


@dataclass(slots=True)
class Counters:
    """What the watch thread counts and everybody reads."""

    frames: int = 0
    unsearchable: int = 0
    outbox_full: bool = False
    alerted_ns: int | None = None

    def unsearchable_face(self) -> None:
        """One more track of which no face could be compared with the list."""
        self.unsearchable += 1


class Controllers(Protocol):
    """What is asked of link/downlink.py."""

    answered_ns: int | None
    """CLOCK_BOOTTIME of a controller's last answer, None before it."""
    refused: str
    """Why the last list was not taken, "" if it was."""


class Keeper(Protocol):
    """What is asked of link/uplink.py."""

    refused: str
    """Why the link service said no to the last report, "" if it did not: its outbox is full."""
    durable: bool
    """Whether what the link service keeps outlives a power cut."""


class Monitor:
    """Measures. `look` is called a few times a second by one thread.

    Args:
        controllers: how the link to them is.
        keeper: how the link service keeps alerts.
        fallen: whether an accelerator has failed and the CPU does its work.
        fps_asked: frames per second asked of the sensor, 0 if it has its own.
        hidden: columns of part-hidden faces that this node can search.
        updating: a folder that is there while root installs an update.
        opened: what picket-data.service says of the data partition.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        counters: Counters,
        capture: Capture,
        controllers: Controllers,
        keeper: Keeper,
        fallen: Callable[[], bool],
        fps_asked: float,
        hidden: frozenset[str] = frozenset(),
        updating: Path = UPDATING,
        opened: Path = data.STATE,
    ) -> None:
        self._clock, self._ledger, self._counters = clock, ledger, counters
        self._capture, self._controllers = capture, controllers
        self._keeper, self._fallen, self._fps_asked = keeper, fallen, fps_asked
        self._columns, self._updating = hidden, updating
        self._in_the_clear = data.in_the_clear(opened)
        self._ticks: deque[tuple[int, int]] = deque()
        self._hot = False
        self.thermal = Thermal()
        self.fps = 0.0

    def look(self, watchlist: Watchlist | None) -> Vitals:
        """How the node is now.

        Args:
            watchlist: the list in use.
        """
        now_ns = self._clock.boot_ns()
        self.fps = self._count(now_ns)
        self.thermal = read(SYS)
        self._hot = too_hot(self.thermal.celsius, before=self._hot)
        answered_ns = self._controllers.answered_ns or 0
        alerted_ns = self._counters.alerted_ns
        return Vitals(
            balanced=self._ledger.snapshot().balanced,
            outbox_full=self._counters.outbox_full or bool(self._keeper.refused),
            outbox_durable=self._keeper.durable,
            asked=answered_ns > 0,
            list_open=watchlist is not None,
            list_refused=bool(self._controllers.refused),
            camera_on=self._capture.since_ns is not None,
            frames=self._counters.frames,
            since_answer_s=(now_ns - answered_ns) / 1e9,
            since_alert_s=math.inf if alerted_ns is None else (now_ns - alerted_ns) / 1e9,
            hot=self._hot,
            throttled=self.thermal.throttled,
            under_voltage=self.thermal.under_voltage,
            on_fallback=self._fallen(),
            clock_set=self._clock.utc_ns() is not None,
            lease_left_s=math.inf if watchlist is None else watchlist.lease_left_s(now_ns),
            fps=self.fps,
            fps_asked=self._fps_asked,
            updating=self._updating.is_dir(),
            in_the_clear=self._in_the_clear,
            hidden_unsearchable=watchlist is not None
            and not self._columns <= set(watchlist.columns),
        )

    def _count(self, now_ns: int) -> float:
        """Frames per second over the last few seconds."""
        self._ticks.append((now_ns, self._counters.frames))
        while now_ns - self._ticks[0][0] > _FPS_WINDOW_S * 1e9:
            self._ticks.popleft()
        (then_ns, before), (_, frames) = self._ticks[0], self._ticks[-1]
        return (frames - before) / (now_ns - then_ns) * 1e9 if now_ns > then_ns else 0.0
