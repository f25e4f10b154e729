"""Judges a demo by what arrived at the controller and by what the scene really showed.

Pure: events in (the JSON Lines of `picketctl serve --json`), a verdict out. An alert is
attributed to the person whose true place in the frame it overlaps best at its exposure time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

Box = tuple[float, float, float, float]

_MIN_OVERLAP = 0.2
"""Intersection over union: the true box is a head, the detector's a face."""


class Shown(Protocol):
    """One person in view: camera.scene.Truth."""

    @property
    def walker(self) -> int:
        """Which appearance it is; a person who walks by twice has two."""

    @property
    def who(self) -> str:
        """The subject reference, "" for a stranger."""

    @property
    def box(self) -> Box:
        """Of the head, x1 y1 x2 y2 as fractions of the frame."""


class Street(Protocol):
    """What there was to see: camera.scene.Scene."""

    def truth(self, t_s: float) -> tuple[Shown, ...]:
        """Who is in view t_s after the camera was switched on."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One alert as it arrived.

    Attributes:
        walker: whom it was attributed to, None for nobody in view.
        correct: the subject is who really walked there; None without a ground truth.
        latency_ms: from exposure of the deciding frame until the controller had it.
    """

    subject: str
    similarity: float
    false_alert_rate: float
    frames_fused: int
    nbytes: int
    walker: int | None
    correct: bool | None
    latency_ms: float


@dataclass(slots=True)
class Scoreboard:
    """Collects a demo's events.

    Attributes:
        street: the ground truth, None for a source of the user's own.
        appearances: subject reference ("" for strangers) of every walker of the street.
        covered: whether that walker's face is part-hidden.
    """

    street: Street | None
    appearances: tuple[str, ...]
    covered: tuple[bool, ...] = ()
    arrivals: list[Arrival] = field(default_factory=list)
    health: dict[str, Any] = field(default_factory=dict)
    camera_since_ns: int | None = None
    refused: str = ""

    def take(self, event: dict[str, Any]) -> Arrival | None:
        """Note an event of the controller; returns the arrival if it was an alert."""
        if event["event"] == "health":
            self.health = event
            self.camera_since_ns = event["camera_since_boot_ns"] or self.camera_since_ns
        elif event["event"] == "refused":
            self.refused = str(event["reason"])
        elif event["event"] == "alert":
            self.arrivals.append(self._arrival(event))
            return self.arrivals[-1]
        return None

    @property
    def walkers_found(self) -> frozenset[int]:
        """Appearances of subjects that raised a correct alert."""
        return frozenset(a.walker for a in self.arrivals if a.correct and a.walker is not None)

    @property
    def found(self) -> int:
        """How many of them."""
        return len(self.walkers_found)

    def split(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(found, shown) of the subjects' appearances, first bare faces, then part-hidden ones."""
        found = self.walkers_found
        sides = []
        for hidden in (False, True):
            shown = [
                n
                for n, who in enumerate(self.appearances)
                if who and (n < len(self.covered) and self.covered[n]) == hidden
            ]
            sides.append((sum(n in found for n in shown), len(shown)))
        return sides[0], sides[1]

    @property
    def people_missed(self) -> frozenset[str]:
        """Subjects who walked by and were not found at all."""
        found = {self.appearances[n] for n in self.walkers_found}
        return frozenset(who for who in self.appearances if who) - found

    @property
    def shown(self) -> int:
        """Appearances of subjects."""
        return sum(bool(who) for who in self.appearances)

    @property
    def strangers(self) -> int:
        """Appearances of people who are not on the list."""
        return len(self.appearances) - self.shown

    @property
    def false_alerts(self) -> int:
        """Alerts that named somebody who was not there."""
        return sum(a.correct is False for a in self.arrivals)

    def latency_ms(self, percent: float) -> float | None:
        """Percentile of exposure-to-received over all alerts, None without any."""
        if not self.arrivals:
            return None
        return float(np.percentile([a.latency_ms for a in self.arrivals], percent))

    def per_subject(self) -> Counter[str]:
        """Alerts per subject reference."""
        return Counter(a.subject for a in self.arrivals)

    def _arrival(self, event: dict[str, Any]) -> Arrival:
        walker, correct = self._attribute(event)
        return Arrival(
            subject=event["subject"],
            similarity=event["similarity"],
            false_alert_rate=event["false_alert_rate"],
            frames_fused=event["frames_fused"],
            nbytes=event["nbytes"],
            walker=walker,
            correct=correct,
            latency_ms=(event["received_boot_ns"] - event["exposed_boot_ns"]) / 1e6,
        )

    def _attribute(self, event: dict[str, Any]) -> tuple[int | None, bool | None]:
        if self.street is None:
            return None, None
        if self.camera_since_ns is None:
            return None, False
        t_s = (event["exposed_boot_ns"] - self.camera_since_ns) / 1e9
        there = self.street.truth(t_s)
        best = max(there, key=lambda shown: overlap(event["box"], shown.box), default=None)
        if best is None or overlap(event["box"], best.box) < _MIN_OVERLAP:
            return None, False
        return best.walker, best.who == event["subject"]


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes x1 y1 x2 y2, in [0, 1]."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union
