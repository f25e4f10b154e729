"""Percentiles of durations without keeping the durations."""

from __future__ import annotations

import math
from dataclasses import dataclass

_RATIO = 1.05
_FIRST_NS = 1_000
_BINS = 460
"""1 µs * 1.05 ** 460 is 93 minutes: longer than anything is held."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long something took, over everything counted so far; zeros if nothing was.

    Attributes:
        count: durations counted.
        p50_ms, p99_ms: upper bounds of percentiles, at most 5 % above the true ones.
        max_ms: the longest, exact.
    """

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Histogram:
    """Durations in bins that grow by 5 %: constant memory for as long as the node runs."""

    def __init__(self) -> None:
        self._counts = [0] * _BINS
        self._count = 0
        self._max_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration.

        Raises:
            ValueError: it is negative: the clocks of its two ends differ.
        """
        if duration_ns < 0:
            raise ValueError(f"duration of {duration_ns} ns: ended before it began")
        place = 0
        if duration_ns > _FIRST_NS:
            place = math.ceil(math.log(duration_ns / _FIRST_NS) / math.log(_RATIO))
        self._counts[min(place, _BINS - 1)] += 1
        self._count += 1
        self._max_ns = max(self._max_ns, duration_ns)

    def percentile_ns(self, percent: float) -> float:
        """The smallest bound below which `percent` of the durations lie; 0 without any."""
        rank = math.ceil(self._count * percent / 100)
        seen = 0
        for place, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                return min(_FIRST_NS * _RATIO**place, float(self._max_ns))
        return 0.0

    def summary(self) -> Latency:
        """What health messages tell."""
        return Latency(
            count=self._count,
            p50_ms=self.percentile_ns(50) / 1e6,
            p99_ms=self.percentile_ns(99) / 1e6,
            max_ms=self._max_ns / 1e6,
        )
