"""Open-set identification after ISO/IEC 19795-1: how many are missed, how many are stopped wrongly.

Enters: scores of mated probes (their subject is on the list) and of non-mated ones. Leaves: rates,
thresholds, DET curves, and 95 % intervals by resampling *subjects*: pictures of one person are no
independent trials. Pure; the seed is an argument.

Definitions. A mated probe is identified at a threshold if its own subject scores at least that and
higher than anybody else: TPIR is the fraction, FNIR = 1 - TPIR. A non-mated probe is a false alert
if anybody scores at least the threshold: FPIR. A probe without a usable face stays in both
denominators: it cannot raise an alert, rightly or wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.evaluation.compare import Indices, Scores

RESAMPLES = 1000
_TWO_SIDED = 0.95

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rate:
    """A fraction with its 95 % interval.

    Attributes:
        trials: what it is a fraction of.
        subjects: different people among them: what the interval rests on.
    """

    value: float
    low: float
    high: float
    trials: int
    subjects: int


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """Scores of an identification test, one row per probe.

    Attributes:
        mated: cosine with the probe's own subject; -inf where that one is not the nearest, or
            where no usable face was found: such a probe is missed at every threshold.
        mated_subject: whose probe it is.
        nonmated: best cosine with anybody; -inf where no usable face was found.
        nonmated_subject: see mated_subject.
    """

    mated: Scores
    mated_subject: Indices
    nonmated: Scores
    nonmated_subject: Indices


@dataclass(frozen=True, slots=True)
class Operating:
    """One point of an identification test.

    Attributes:
        asked_fpir: what the threshold was chosen for; None if the threshold was given.
        shown: whether there are enough strangers to show such a rate at all: three times 1 / FPIR.
    """

    asked_fpir: float | None
    threshold: float
    tpir: Rate
    fpir: Rate
    shown: bool


def tpir(trials: Trials, threshold: float) -> float:
    """Fraction of mated probes identified at a threshold."""
    return float(np.mean(trials.mated >= threshold)) if len(trials.mated) else float("nan")


def fpir(trials: Trials, threshold: float) -> float:
    """Fraction of non-mated probes that raise an alert at a threshold."""
    return float(np.mean(trials.nonmated >= threshold)) if len(trials.nonmated) else float("nan")


def threshold_at(trials: Trials, rate: float) -> float:
    """The least threshold at which at most `rate` of the non-mated probes raise an alert."""
    return _Weighted(trials.nonmated).threshold(np.ones(len(trials.nonmated)), rate)


class Bootstrap:
    """The same test, again and again, with subjects drawn anew.

    Mated and non-mated subjects are drawn separately; the gallery stays. Where a threshold is
    chosen for a rate, it is chosen anew in each resample, so its own uncertainty is included.

    Args:
        trials: the test.
        seed: the same seed gives the same intervals.
        resamples: how many.
    """

    def __init__(self, trials: Trials, *, seed: int, resamples: int = RESAMPLES) -> None:
        self._trials = trials
        self._mated, self._nonmated = _Weighted(trials.mated), _Weighted(trials.nonmated)
        self._subjects = _People(trials.mated_subject), _People(trials.nonmated_subject)
        self._people = self._subjects[0].count, self._subjects[1].count
        self._seed, self._resamples = seed, resamples

    @property
    def _weights(self) -> Iterator[tuple[Floats, Floats]]:
        """How often each probe is in each resample; drawn again each time rather than kept."""
        draws = np.random.default_rng(self._seed)
        mated, nonmated = self._subjects
        return ((mated.draw(draws), nonmated.draw(draws)) for _ in range(self._resamples))

    def at_fpir(self, rate: float) -> Operating:
        """The point at which at most `rate` of the strangers raise an alert."""
        return self.at_fpirs([rate])[0]

    def at_fpirs(self, rates: Sequence[float]) -> tuple[Operating, ...]:
        """The same for several rates."""
        return self._points(rates, [threshold_at(self._trials, rate) for rate in rates])

    def at_threshold(self, threshold: float) -> Operating:
        """The point at a given threshold."""
        return self.at_thresholds([threshold])[0]

    def at_thresholds(self, thresholds: Sequence[float]) -> tuple[Operating, ...]:
        """The same for several thresholds."""
        return self._points([None] * len(thresholds), thresholds)

    def tpir_at_fpirs(self, rates: Sequence[float]) -> tuple[Floats, Floats]:
        """Lower and upper ends of TPIR's interval at each FPIR, for a band around a DET curve."""
        low, high = _interval(self.resampled(rates))
        return np.atleast_1d(low), np.atleast_1d(high)

    def resampled(self, rates: Sequence[float]) -> Floats:
        """(resamples, rates) TPIR at each FPIR.

        Two tests of the same people with the same seed are drawn alike, row by row: the interval
        of their difference is that of the rows' differences.
        """
        wanted = np.asarray(rates)
        return np.array(
            [
                self._mated.fractions(w, self._nonmated.thresholds(v, wanted))
                for w, v in self._weights
            ]
        )

    def tpirs(self, threshold: float, chosen: npt.NDArray[np.bool_]) -> Floats:
        """TPIR of a part of the mated probes at one threshold, per resample; NaN without any."""
        part = _Weighted(self._trials.mated[chosen])
        return np.array([part.fraction(w[chosen], threshold) for w, _ in self._weights])

    def fpirs(self, threshold: float, chosen: npt.NDArray[np.bool_]) -> Floats:
        """FPIR of a part of the non-mated probes at one threshold, per resample."""
        part = _Weighted(self._trials.nonmated[chosen])
        return np.array([part.fraction(v[chosen], threshold) for _, v in self._weights])

    def _points(
        self, asked: Sequence[float | None], thresholds: Sequence[float]
    ) -> tuple[Operating, ...]:
        """Where a rate was asked for, its threshold is chosen anew in each resample."""
        given = np.asarray(thresholds, np.float64)
        chosen = np.array([rate is not None for rate in asked])
        rates = np.array([0.0 if rate is None else rate for rate in asked])
        hits, alarms = [], []
        for w, v in self._weights:
            redrawn = np.where(chosen, self._nonmated.thresholds(v, rates), given)
            hits.append(self._mated.fractions(w, redrawn))
            alarms.append(self._nonmated.fractions(v, given))
        return tuple(
            self._point(rate, threshold, np.array(hits)[:, i], np.array(alarms)[:, i])
            for i, (rate, threshold) in enumerate(zip(asked, thresholds, strict=True))
        )

    def _point(
        self, asked: float | None, threshold: float, hits: Floats, alarms: Floats
    ) -> Operating:
        trials, (people, strangers) = self._trials, self._people
        return Operating(
            asked_fpir=asked,
            threshold=threshold,
            tpir=_rate(tpir(trials, threshold), hits, len(trials.mated), people),
            fpir=_rate(fpir(trials, threshold), alarms, len(trials.nonmated), strangers),
            shown=asked is None or strangers * asked >= 3,  # noqa: PLR2004 - rule of three
        )


def interval(values: Floats, confidence: float = _TWO_SIDED) -> tuple[float, float]:
    """The middle part of resampled values that holds so much of them; NaN where there are none."""
    low, high = _interval(values, confidence)
    return float(low), float(high)


def _interval(values: Floats, confidence: float = _TWO_SIDED) -> tuple[Floats, Floats]:
    """Percentiles along the first axis."""
    tail = (1 - confidence) / 2
    if not len(values) or np.isnan(values).all():
        return np.array(np.nan), np.array(np.nan)
    low, high = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return np.asarray(low), np.asarray(high)


def _rate(value: float, resampled: Floats, trials: int, subjects: int) -> Rate:
    low, high = interval(resampled)
    if value == 0.0 and subjects:
        # Nothing resampled from zeros is anything but zero: the rule of three bounds it instead.
        high = max(high, min(1.0, 3 / subjects))
    if value == 1.0 and subjects:
        low = min(low, max(0.0, 1 - 3 / subjects))
    return Rate(value, low, high, trials, subjects)


class _People:
    """Whose each probe is, to be drawn with replacement."""

    def __init__(self, subjects: Indices) -> None:
        people, self._which = np.unique(subjects, return_inverse=True)
        self.count = len(people)

    def draw(self, draws: np.random.Generator) -> Floats:
        """(n,) how often each probe is in a resample: as often as its subject was drawn."""
        if not self.count:
            return np.zeros(0)
        chosen = draws.integers(0, self.count, self.count)
        times = np.bincount(chosen, minlength=self.count)
        return times[self._which].astype(np.float64)


class _Weighted:
    """Scores sorted once, to be asked many times with other weights."""

    def __init__(self, scores: Scores) -> None:
        self._order = np.argsort(-scores, kind="stable")
        self._falling = scores[self._order]

    def fraction(self, weights: Floats, threshold: float) -> float:
        """Weight of the scores at or above a threshold, of all weight; NaN without any weight."""
        return float(self.fractions(weights, np.array([threshold]))[0])

    def fractions(self, weights: Floats, thresholds: Floats) -> Floats:
        """The same for several thresholds."""
        above = np.concatenate([[0.0], np.cumsum(weights[self._order])])
        if above[-1] == 0:
            return np.full(len(thresholds), np.nan)
        counts = np.searchsorted(-self._falling, -thresholds, side="right")
        return np.asarray(above[counts] / above[-1])

    def threshold(self, weights: Floats, rate: float) -> float:
        """The least threshold that at most `rate` of the weight reaches; NaN without scores."""
        return float(self.thresholds(weights, np.array([rate]))[0])

    def thresholds(self, weights: Floats, rates: Floats) -> Floats:
        """The same for several rates."""
        if not len(self._falling):
            return np.full(len(rates), np.nan)
        above = np.cumsum(weights[self._order])  # weight at or above each score
        first = np.searchsorted(above, rates * above[-1] + 1e-9, side="right")
        stopped = self._falling[np.minimum(first, len(self._falling) - 1)]
        # Just above the first score that would be one alert too many, and above its equals.
        all_pass = first == len(self._falling)
        return np.asarray(np.where(all_pass, stopped, np.nextafter(stopped, np.inf)), np.float64)
