"""How often strangers match: the table that the manifest holds of an embedder, and its proof.

    python -m appliance.evaluation.calibrate DATA --table false_match.json --accuracy accuracy.json

Enters: samples of a protocol's pictures. Leaves: types.FalseMatch, made of all pairs of pictures of
different people; how uncertain its tail is, by drawing people anew; and whether it keeps its word:
fitted on one half of the people, it predicts the false alerts of the other half.

A pair of people is no independent trial when each person is in thousands of pairs. Hence people are
drawn, not pairs, and a person who looks like many others widens the interval as she should.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from appliance.evaluation.assess import Samples, person_trials, trials_of
from appliance.evaluation.compare import Gallery, Indices
from appliance.evaluation.evaluate import collect
from appliance.evaluation.identification import Bootstrap, Trials
from appliance.evaluation.models import load as load_models
from appliance.evaluation.persons import MAX_FUSED
from appliance.evaluation.protocol import Role
from appliance.evaluation.protocol import load as load_protocol
from appliance.types import FalseMatch, Vectors
from appliance.watchlist import calibration
from appliance.watchlist.calibration import Histogram, interval_at, rate_at, threshold_for

PICTURES_PER_PERSON = 3
"""More of one person would say little new of strangers and much of that person."""

_RESAMPLES = 500
_BLOCK = 512


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Comparisons of pictures of different people.

    Attributes:
        counts: of all their cosines.
        left, right: people of the pairs at or above `least`.
        cosine: of those.
        least: cosine from which pairs are kept one by one.
    """

    counts: Histogram
    left: Indices
    right: Indices
    cosine: npt.NDArray[np.float32]
    least: float


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


def pairs(vectors: Vectors, people: Indices, *, least: float = 0.4) -> Pairs:
    """Compare everybody with everybody else, once per pair of pictures.

    Args:
        vectors: (n, dim) float32 of norm 1.
        people: (n,) whose they are.
        least: see Pairs.
    """
    counts = np.zeros(calibration.BINS, np.int64)
    kept: list[tuple[Indices, Indices, npt.NDArray[np.float32]]] = []
    for start in range(0, len(vectors), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(vectors)))
        scores = vectors[rows] @ vectors[start:].T  # (block, n - start)
        columns = np.arange(start, len(vectors))
        strangers = (people[rows][:, None] != people[columns]) & (rows[:, None] < columns)
        counts += calibration.histogram(scores[strangers])
        i, j = np.nonzero(strangers & (scores >= least))
        kept.append((people[rows[i]], people[columns[j]], scores[i, j]))
    left, right, cosine = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return Pairs(counts, left, right, cosine, least)


def table_of(found: Pairs, *, people: int, source: str, seed: int) -> FalseMatch:
    """The table, its slope's error measured by drawing people anew.

    Raises:
        ThresholdError: too few comparisons.
    """
    table = calibration.fit(found.counts, probes=people, source=source)
    slopes = np.array(list(_slopes(found, table.tail_similarity, seed)))
    return replace(table, tail_slope_error=round(float(slopes.std(ddof=1)), 3))


def check(vectors: Vectors, people: Indices, *, seed: int) -> list[Check]:
    """Fit on one half of the people, predict for the other, both ways round.

    Lists of several lengths are made of one picture each of half of the other half's people; the
    rest of them walk by.
    """
    names = np.random.default_rng(seed).permutation(np.unique(people))
    halves = names[::2], names[1::2]
    checks: list[Check] = []
    for known, unknown in (halves, halves[::-1]):
        inside = np.isin(people, known)
        table = table_of(
            pairs(vectors[inside], people[inside]), people=len(known), source="half", seed=seed
        )
        checks += _predictions(table, vectors, people, unknown)
    return checks


def _predictions(
    table: FalseMatch, vectors: Vectors, people: Indices, unknown: Indices
) -> Iterator[Check]:
    """False alerts of people whom the table does not know, at thresholds that it gave."""
    first = {int(person): int(np.flatnonzero(people == person)[0]) for person in unknown}
    listed, walking = unknown[: len(unknown) // 2], unknown[len(unknown) // 2 :]
    probes = vectors[[first[int(person)] for person in walking]]
    for templates in (len(listed) // 8, len(listed)):
        rows = [first[int(person)] for person in listed[:templates]]
        gallery = Gallery(vectors[rows], listed[:templates])
        best = gallery.compare(probes, walking).other
        for fpir in (0.3, 0.1, 0.03, 0.01, 0.005):
            threshold = threshold_for(table, templates=templates, fpir=fpir, floor=-1.0)
            low, high = interval_at(table, threshold, templates=templates)
            yield Check(
                templates,
                len(walking),
                fpir,
                threshold,
                _chance(low, len(walking))[0],
                _chance(high, len(walking))[1],
                float(np.mean(best >= threshold)),
            )


def _chance(rate: float, trials: int) -> tuple[float, float]:
    """Between which fractions so many trials at a rate lie, 95 % of the time (Wilson's score)."""
    z = 1.96
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    spread = (
        z * np.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2) / (1 + z * z / trials)
    )
    return max(0.0, float(centre - spread)), min(1.0, float(centre + spread))


def _slopes(found: Pairs, start: float, seed: int) -> Iterator[float]:
    """The tail's slope with people drawn anew; a pair counts as often as both its people do."""
    draws = np.random.default_rng(seed)
    tail = found.cosine >= start
    left, right = found.left[tail], found.right[tail]
    excess = found.cosine[tail] - start
    people, which = np.unique(np.concatenate([left, right]), return_inverse=True)
    a, b = which[: len(left)], which[len(left) :]
    for _ in range(_RESAMPLES):
        times = draws.poisson(1.0, len(people))
        weight = times[a] * times[b]
        if weight.sum():
            yield float(weight.sum() / (weight @ excess))


def one_each(samples: Samples, *, most: int = PICTURES_PER_PERSON) -> Indices:
    """Rows with a vector, at most so many per person, in order."""
    seen: dict[int, int] = {}
    rows: list[int] = []
    for row in np.flatnonzero(~np.isnan(samples.vectors).any(axis=1)):
        person = int(samples.people[row])
        seen[person] = seen.get(person, 0) + 1
        if seen[person] <= most:
            rows.append(int(row))
    return np.array(rows, np.intp)


def expected(trials: Trials, *, seed: int) -> list[dict[str, float]]:
    """TPIR over the threshold with its interval: what `picket threshold` expects."""
    bootstrap = Bootstrap(trials, seed=seed, resamples=300)
    points = [bootstrap.at_threshold(float(t)) for t in np.arange(0.2, 0.951, 0.025)]
    return [
        {
            "threshold": round(p.threshold, 3),
            "tpir": round(p.tpir.value, 4),
            "low": round(p.tpir.low, 4),
            "high": round(p.tpir.high, 4),
        }
        for p in points
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m appliance.evaluation.calibrate")
    parser.add_argument("data", type=Path)
    parser.add_argument("--table", type=Path, help="write the table as JSON")
    parser.add_argument("--accuracy", type=Path, help="write the expected TPIR as JSON")
    parser.add_argument("--source", default="", help="what to say of the data, one line")
    parser.add_argument("--detector", default=None)
    parser.add_argument("--models", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    protocol = load_protocol(arguments.data, seed=arguments.seed)
    with load_models(folder=arguments.models, detector=arguments.detector) as models:
        samples = Samples.of(protocol, collect(protocol, models, cache=None), gated=False)
        model = models.embedder_file.spec.id
    rows = one_each(samples)
    vectors, people = samples.vectors[rows], samples.people[rows]
    source = arguments.source or f"{arguments.data.resolve().name}, {protocol.how}"
    table = table_of(
        pairs(vectors, people), people=len(np.unique(people)), source=source, seed=arguments.seed
    )
    print(f"{table.comparisons} comparisons of {table.probes} people")
    print(
        f"tail from cosine {table.tail_similarity}: one in {1 / table.tail_rate:,.0f},"
        f" slope {table.tail_slope} ± {table.tail_slope_error}"
    )
    for result in check(vectors, people, seed=arguments.seed):
        print(
            f"list of {result.templates}: asked {result.fpir:.2%}, predicted"
            f" {result.low:.2%} to {result.high:.2%}, observed {result.observed:.2%} of"
            f" {result.strangers} {'' if result.held else '  OUTSIDE'}"
        )
    for templates, fpir in ((1000, 0.01), (10_000, 1 / 1000), (10_000, 1 / 6000)):
        threshold = threshold_for(table, templates=templates, fpir=fpir, floor=-1.0)
        low, high = interval_at(table, threshold, templates=templates)
        rate = rate_at(table, threshold, templates=templates)
        print(f"{templates} at {fpir:.5f}: {threshold:.4f} [{low:.2g}, {rate:.2g}, {high:.2g}]")
    if arguments.table:
        arguments.table.write_bytes(
            msgspec.json.format(msgspec.json.encode(asdict(table)), indent=1)
        )
    if arguments.accuracy:
        record = {
            "model": model,
            "source": source,
            "fused": MAX_FUSED,
            "per_picture": expected(_per_picture(samples), seed=arguments.seed),
            "per_person": expected(
                person_trials(samples, samples.gallery(), pictures=MAX_FUSED, seed=arguments.seed),
                seed=arguments.seed,
            ),
        }
        arguments.accuracy.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1))
    return 0


def _per_picture(samples: Samples) -> Trials:
    gallery, mated = samples.gallery(), samples.rows(Role.MATED)
    strangers = samples.rows(Role.NONMATED)
    return trials_of(
        gallery.compare(samples.vectors[mated], samples.people[mated]),
        samples.people[mated],
        gallery.compare(samples.vectors[strangers], samples.people[strangers]),
        samples.people[strangers],
    )


if __name__ == "__main__":
    sys.exit(main())
