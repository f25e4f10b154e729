"""From a tolerable false-alert rate to a threshold, and from a score to an error rate.

Enters: the embedder's table of false matches (types.FalseMatch, from its manifest). Leaves: the
cosine from which a passer-by is called a subject, and the chance that a stranger gets so far.
No model, no pictures and no I/O: how the scores for a table are made is appliance/evaluation's.

A stranger is compared with every template of the list and each comparison may go wrong, so with p
the rate of one comparison and N templates, the rate of a passer-by is 1 - (1 - p)^N. That holds
for independent comparisons; where they depend on each other the true rate is lower, never above
N * p.

Below what was measured, p is extrapolated by an exponential tail. The further out, the less the
fit can tell: its uncertainty is carried along, and a list is refused where it grows beyond
MAX_UNCERTAINTY, because a rate known to no better than that is no promise.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from appliance.errors import ThresholdError
from appliance.types import FalseMatch

MAX_UNCERTAINTY = 10.0
"""Ratio of the interval's upper end to the estimate beyond which no threshold is given."""

BIN = 0.0005
"""Width of the bins of a histogram of cosines; a tail falls by e in 50 of them and more."""
BINS = round(2 / BIN)

TAIL_COMPARISONS = 400
"""Highest comparisons that a tail is fitted to: the slope is then known to 1/sqrt(400) = 5 % if
they are independent. More would reach into the body of the distribution, which is steeper at its
foot than at its shoulder, and the fit would overstate the rates that matter."""

_Z95 = 1.96
"""Two-sided 95 % of a normal distribution."""
_KNOTS_PER_DECADE = 6
_MOST_PROBABLE = 1 - 1e-12
_LEAST = 1e-300
"""Keeps a logarithm finite; no rate of ours comes near."""

Histogram = npt.NDArray[np.int64]
"""(BINS,) counts of cosines: bin i holds those from -1 + i * BIN up to the next bin."""


def rate_at(table: FalseMatch, similarity: float, *, templates: int) -> float:
    """The chance that a passer-by who is not on the list reaches a similarity.

    Args:
        table: of the embedder that made probe and templates.
        similarity: cosine of the nearest template.
        templates: in the list, 0 or more; several of one subject each count.

    Returns:
        The estimate, in [0, 1]; its uncertainty is `interval_at`'s to tell.
    """
    return _per_list(_per_comparison(table, similarity), templates)


def interval_at(table: FalseMatch, similarity: float, *, templates: int) -> tuple[float, float]:
    """Between which rates `rate_at` lies with 95 % confidence, as far as the fit can know.

    It covers chance in the strangers that were measured, not how those strangers differ from
    the people on a street.

    Args:
        table: see `rate_at`.
        similarity: see `rate_at`.
        templates: see `rate_at`.
    """
    rate = _per_comparison(table, similarity)
    factor = _uncertainty(table, similarity)
    return _per_list(rate / factor, templates), _per_list(min(1.0, rate * factor), templates)


def threshold_for(table: FalseMatch, *, templates: int, fpir: float, floor: float) -> float:
    """The least similarity at which a list may call a passer-by a subject.

    Args:
        table: see `rate_at`.
        templates: in the list, at least 1.
        fpir: tolerable false alerts per passer-by who is not on the list, in (0, 1).
        floor: never below this cosine, whatever the rate allows.

    Returns:
        A cosine in [floor, 1].

    Raises:
        ThresholdError: the numbers are out of their bounds, no cosine is high enough, or the rate
            is so far below all that was measured that it is known to a factor of MAX_UNCERTAINTY
            at best.
    """
    _check(templates, fpir, floor)
    wanted = -math.expm1(math.log1p(-fpir) / templates)
    similarity = _similarity_at(table, wanted)
    asked = f"{templates} templates at {_one_in(fpir)} false alerts"
    if similarity > 1.0:
        raise ThresholdError(
            f"{asked}: a comparison may be wrong {_one_in(wanted)} times,"
            " which no cosine up to 1 is estimated to reach"
        )
    uncertainty = _uncertainty(table, similarity)
    if uncertainty > MAX_UNCERTAINTY:
        raise ThresholdError(
            f"{asked}: a comparison may be wrong {_one_in(wanted)} times, measured were"
            f" {table.comparisons}; so far out the rate is known to a factor of {uncertainty:.0f},"
            f" at most {MAX_UNCERTAINTY:g} is allowed"
        )
    # A floor above what the rate asks for only makes false alerts rarer: it may lie far out.
    return max(floor, similarity)


def similarity_at(table: FalseMatch, rate: float, *, templates: int) -> float:
    """The cosine that `rate_at` gives a rate: its inverse, without a word on how sure that is.

    Args:
        table: see `rate_at`.
        rate: in (0, 1).
        templates: at least 1.

    Returns:
        May be above 1, which nothing reaches.
    """
    return _similarity_at(table, -math.expm1(math.log1p(-rate) / templates))


def histogram(similarities: npt.NDArray[np.floating]) -> Histogram:
    """Count cosines into bins; histograms of parts add up to that of the whole.

    Args:
        similarities: any shape, in [-1, 1]; rounding beyond it counts as the border.
    """
    bins = np.clip(((similarities.ravel() + 1.0) / BIN).astype(np.int64), 0, BINS - 1)
    return np.bincount(bins, minlength=BINS)


def fit(
    counts: Histogram, *, probes: int, source: str, tail_slope_error: float = 0.0
) -> FalseMatch:
    """Measure the table of an embedder.

    Args:
        counts: of the cosines between pictures of different people; see `histogram`.
        probes: pictures (or people) that were compared.
        source: data set and protocol, one line.
        tail_slope_error: standard error of the slope if it was measured, by resampling people;
            0 takes the comparisons for independent.

    Raises:
        ThresholdError: too few comparisons to fit a tail to.
    """
    comparisons = int(counts.sum())
    if comparisons < 2 * TAIL_COMPARISONS:
        raise ThresholdError(
            f"{comparisons} comparisons of strangers: at least {2 * TAIL_COMPARISONS} are needed"
        )
    above = counts[::-1].cumsum()[::-1]  # (BINS,) comparisons at or above each bin's lower edge
    edges = -1.0 + BIN * np.arange(BINS)
    # The last edge that still has as many above it as the tail is fitted to.
    start = int(np.flatnonzero(above >= TAIL_COMPARISONS)[-1])
    excess = edges[start:] + BIN / 2 - edges[start]
    # Maximum likelihood of an exponential: one over the mean excess.
    slope = above[start] / float(counts[start:] @ excess)
    rates = above / comparisons
    knots = _knots(rates, start)
    return FalseMatch(
        similarity=tuple(round(float(edges[i]), 4) for i in knots),
        rate=tuple(float(f"{rates[i]:.6g}") for i in knots),
        tail_similarity=round(float(edges[start]), 4),
        tail_rate=float(f"{rates[start]:.6g}"),
        tail_slope=round(float(slope), 3),
        probes=probes,
        comparisons=comparisons,
        source=source,
        tail_slope_error=round(tail_slope_error, 3),
    )


def _knots(rates: npt.NDArray[np.float64], start: int) -> list[int]:
    """Bins at even steps of the rate's logarithm, from where it leaves 1 to the tail."""
    decades = -math.log10(rates[start])
    wanted = np.logspace(0, -decades, max(3, round(decades * _KNOTS_PER_DECADE)))
    knots = {int(np.flatnonzero(rates >= want * _MOST_PROBABLE)[-1]) for want in wanted}
    return sorted(knots | {start})


def _per_list(rate: float, templates: int) -> float:
    """At least one of so many comparisons goes wrong."""
    if rate >= 1.0:
        return 1.0 if templates else 0.0
    return -math.expm1(templates * math.log1p(-rate))


def _curve(table: FalseMatch) -> tuple[list[float], list[float]]:
    """Similarities, increasing, and the logarithms of their rates: measured, up to the tail."""
    body = [
        (s, max(rate, table.tail_rate))
        for s, rate in zip(table.similarity, table.rate, strict=True)
        if s < table.tail_similarity
    ]
    points = [*body, (table.tail_similarity, table.tail_rate)]
    return [s for s, _ in points], [math.log(max(rate, _LEAST)) for _, rate in points]


def _per_comparison(table: FalseMatch, similarity: float) -> float:
    """Rate of one comparison: straight lines in its logarithm, then the tail."""
    beyond = similarity - table.tail_similarity
    if beyond >= 0:
        return table.tail_rate * math.exp(-table.tail_slope * beyond)
    return math.exp(np.interp(similarity, *_curve(table)))


def _similarity_at(table: FalseMatch, rate: float) -> float:
    """The inverse of `_per_comparison`."""
    if rate <= table.tail_rate:
        return table.tail_similarity + math.log(table.tail_rate / rate) / table.tail_slope
    similarities, logs = _curve(table)
    return float(np.interp(math.log(rate), logs[::-1], similarities[::-1]))


def _uncertainty(table: FalseMatch, similarity: float) -> float:
    """The factor by which the rate of a comparison may be off either way, with 95 % confidence.

    Two errors, both relative: of the count that a rate rests on, and of the tail's slope times
    the distance over which it is trusted.
    """
    seen = max(1.0, table.comparisons * max(_per_comparison(table, similarity), table.tail_rate))
    in_tail = max(1.0, table.comparisons * table.tail_rate)
    slope_error = table.tail_slope_error or table.tail_slope / math.sqrt(in_tail)
    # Errors of count and slope grow together where comparisons share people.
    inflation = slope_error / (table.tail_slope / math.sqrt(in_tail))
    beyond = max(0.0, similarity - table.tail_similarity)
    deviation = math.hypot(max(1.0, inflation) / math.sqrt(seen), slope_error * beyond)
    return math.exp(min(_Z95 * deviation, 700.0))


def _check(templates: int, fpir: float, floor: float) -> None:
    if templates < 1:
        raise ThresholdError(f"a list of {templates} templates: at least 1 is needed")
    if not 0.0 < fpir < 1.0:
        raise ThresholdError(f"a false-alert rate of {fpir}: must be between 0 and 1")
    if not -1.0 <= floor <= 1.0:
        raise ThresholdError(f"a threshold floor of {floor}: must be a cosine")


def _one_in(rate: float) -> str:
    return f"1 in {1 / rate:,.4g}" if rate < 0.5 else f"{rate:.2g}"  # noqa: PLR2004 - "1 in 1" reads badly
