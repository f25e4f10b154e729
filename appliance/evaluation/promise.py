"""Does a table of false matches keep its word? What it promised strangers, and what they got.

Enters: a table, and the best scores of strangers against a list. Leaves: for several rates, between
which bounds the false alerts should lie and where they do lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from appliance.errors import ThresholdError
from appliance.evaluation.compare import Scores
from appliance.types import FalseMatch
from appliance.watchlist.calibration import interval_at, threshold_for

CHECKED = (0.3, 0.1, 0.03, 0.01, 0.005)
"""Rates at which the table is held to its word; below 3 in the number of strangers none shows."""


@dataclass(frozen=True, slots=True)
class Check:
    """A prediction for people that the table was not made of, and what happened.

    Attributes:
        fpir: asked for.
        low, high: between which the observed rate should lie: the fit's own uncertainty and the
            chance in so many strangers together.
        observed: false alerts among `strangers`.
    """

    templates: int
    strangers: int
    fpir: float
    threshold: float
    low: float
    high: float
    observed: float

    @property
    def held(self) -> bool:
        """Whether the table kept its word."""
        return self.low <= self.observed <= self.high


def kept(table: FalseMatch, strangers: Scores, *, templates: int) -> Iterator[Check]:
    """Hold a table to its word.

    Args:
        table: of the embedder that made the scores.
        strangers: (n,) best score of each person who is not on the list.
        templates: on the list.

    Yields:
        One for each of CHECKED that the table can serve.
    """
    count = len(strangers)
    for fpir in CHECKED if count else ():
        try:
            threshold = threshold_for(table, templates=templates, fpir=fpir, floor=-1.0)
        except ThresholdError:
            continue
        low, high = interval_at(table, threshold, templates=templates)
        yield Check(
            templates,
            count,
            fpir,
            threshold,
            chance(low, count)[0],
            chance(high, count)[1],
            float(np.mean(strangers >= threshold)),
        )


def chance(rate: float, trials: int) -> tuple[float, float]:
    """Between which fractions so many trials at a rate lie, 95 % of the time (binomial)."""
    rate = min(max(rate, 1e-12), 1 - 1e-12)
    counts = np.arange(1, trials + 1)
    steps = np.log((trials - counts + 1) / counts) + np.log(rate / (1 - rate))
    logs = np.concatenate([[0.0], np.cumsum(steps)]) + trials * np.log(1 - rate)
    below = np.cumsum(np.exp(logs))  # chance of at most 0, 1, 2 ... of them
    low, high = np.searchsorted(below, [0.025, 0.975])
    return float(low / trials), float(min(high, trials) / trials)
