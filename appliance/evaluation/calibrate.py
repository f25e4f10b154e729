"""How often strangers match: the table that the manifest holds of an embedder, and its proof.

    python -m appliance.evaluation.calibrate DATA --table false_match.json --accuracy accuracy.json

Enters: samples of a protocol's pictures. Leaves: types.FalseMatch, made by comparing fused probes,
which is what the node decides on, with single pictures, which is what a list is made of; how
uncertain its tail is, by drawing people anew; and whether it keeps its word: fitted on one half of
the people, it predicts the false alerts of the other half.

A fused probe is the mean of two to five pictures of a person. It is nearer to everybody than a
single picture, strangers included: on LFW strangers reach the same cosine 1.5 times as often.

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

from appliance.evaluation.assess import person_trials, trials_of
from appliance.evaluation.compare import Gallery, Indices
from appliance.evaluation.evaluate import collect
from appliance.evaluation.identification import Bootstrap, Trials
from appliance.evaluation.models import load as load_models
from appliance.evaluation.persons import MAX_FUSED, mean
from appliance.evaluation.promise import Check, kept
from appliance.evaluation.protocol import Role
from appliance.evaluation.protocol import load as load_protocol
from appliance.evaluation.samples import Samples
from appliance.types import FalseMatch, Vectors
from appliance.watchlist import calibration
from appliance.watchlist.calibration import Histogram

PICTURES_PER_PERSON = 3
"""Templates of a person: more would say little new of strangers and much of that person."""

_RESAMPLES = 500
_BLOCK = 512


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Vectors and whose they are.

    Attributes:
        vectors: (n, dim) float32 of norm 1.
        whose: (n,) numbers.
    """

    vectors: Vectors
    whose: Indices

    def of(self, people: Indices) -> People:
        """Those of some people only."""
        inside = np.isin(self.whose, people)
        return People(self.vectors[inside], self.whose[inside])


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Comparisons of different people.

    Attributes:
        counts: of all their cosines.
        left, right: people of the pairs at or above `least`.
        cosine: of those.
    """

    counts: Histogram
    left: Indices
    right: Indices
    cosine: npt.NDArray[np.float32]


def templates_of(samples: Samples, *, most: int = PICTURES_PER_PERSON) -> People:
    """Single pictures, at most so many per person, in order."""
    seen: dict[int, int] = {}
    rows: list[int] = []
    for row in np.flatnonzero(~np.isnan(samples.vectors).any(axis=1)):
        person = int(samples.people[row])
        seen[person] = seen.get(person, 0) + 1
        if seen[person] <= most:
            rows.append(int(row))
    return People(samples.vectors[rows], samples.people[rows])


def probes_of(samples: Samples) -> People:
    """One fused probe of everybody with two usable pictures or more: the mean of her first five."""
    usable = np.flatnonzero(~np.isnan(samples.vectors).any(axis=1))
    people, counts = np.unique(samples.people[usable], return_counts=True)
    people = people[counts > 1]
    fused = [
        mean(samples.vectors[usable[samples.people[usable] == person][:MAX_FUSED]])
        for person in people
    ]
    return People(np.array(fused, np.float32), people)


def pairs(probes: People, templates: People, *, least: float = 0.35) -> Pairs:
    """Compare every probe with every template of somebody else.

    Args:
        probes: who walks by.
        templates: who might be on a list.
        least: cosine from which pairs are kept one by one.
    """
    counts = np.zeros(calibration.BINS, np.int64)
    kept: list[tuple[Indices, Indices, npt.NDArray[np.float32]]] = []
    for start in range(0, len(probes.whose), _BLOCK):
        whose = probes.whose[start : start + _BLOCK]
        scores = probes.vectors[start : start + _BLOCK] @ templates.vectors.T  # (block, n)
        strangers = whose[:, None] != templates.whose
        counts += calibration.histogram(scores[strangers])
        i, j = np.nonzero(strangers & (scores >= least))
        kept.append((whose[i], templates.whose[j], scores[i, j]))
    left, right, cosine = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return Pairs(counts, left, right, cosine)


def table_of(probes: People, templates: People, *, source: str, seed: int) -> FalseMatch:
    """The table, its slope's error measured by drawing people anew.

    Raises:
        ThresholdError: too few comparisons.
    """
    found = pairs(probes, templates)
    table = calibration.fit(found.counts, probes=len(probes.whose), source=source)
    slopes = np.array(list(_slopes(found, table.tail_similarity, seed)))
    return replace(table, tail_slope_error=round(float(slopes.std(ddof=1)), 3))


def check(probes: People, templates: People, *, seed: int) -> list[Check]:
    """Fit on one half of the people, predict for the other, both ways round.

    In the half that the table does not know, those with a probe walk by; lists of several lengths
    are made of one picture each of the others.
    """
    names = np.random.default_rng(seed).permutation(np.unique(templates.whose))
    halves = names[::2], names[1::2]
    checks: list[Check] = []
    for known, unknown in (halves, halves[::-1]):
        table = table_of(probes.of(known), templates.of(known), source="half", seed=seed)
        walking = probes.of(unknown)
        listed = np.setdiff1d(unknown, walking.whose)
        checks += _predictions(table, walking, templates.of(listed))
    return checks


def _predictions(table: FalseMatch, walking: People, listed: People) -> Iterator[Check]:
    """False alerts of people whom the table does not know, at thresholds that it gave."""
    people, first = np.unique(listed.whose, return_index=True)
    for templates in (len(people) // 8, len(people)):
        gallery = Gallery(listed.vectors[first[:templates]], people[:templates])
        best = gallery.compare(walking.vectors, walking.whose).other
        yield from kept(table, best, templates=templates)


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


def expected(trials: Trials, *, seed: int) -> list[dict[str, float]]:
    """TPIR over the threshold with its interval: what `picket threshold` expects."""
    bootstrap = Bootstrap(trials, seed=seed, resamples=300)
    points = bootstrap.at_thresholds(np.arange(0.2, 0.951, 0.025).tolist())
    return [
        {
            "threshold": round(p.threshold, 3),
            "tpir": round(p.tpir.value, 4),
            "low": round(p.tpir.low, 4),
            "high": round(p.tpir.high, 4),
        }
        for p in points
    ]


def accuracy(samples: Samples, *, model: str, source: str, seed: int) -> dict[str, object]:
    """What evaluation/threshold.py reads back."""
    gallery, mated = samples.gallery(), samples.rows(Role.MATED)
    strangers = samples.rows(Role.NONMATED)
    per_picture = trials_of(
        gallery.compare(samples.vectors[mated], samples.people[mated]),
        samples.people[mated],
        gallery.compare(samples.vectors[strangers], samples.people[strangers]),
        samples.people[strangers],
    )
    per_person = person_trials(samples, gallery, pictures=MAX_FUSED, seed=seed)
    return {
        "model": model,
        "source": source,
        "fused": MAX_FUSED,
        "per_picture": expected(per_picture, seed=seed),
        "per_person": expected(per_person, seed=seed),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    arguments = _parser().parse_args(argv)
    protocol = load_protocol(arguments.data, seed=arguments.seed, errata=arguments.errata)
    with load_models(folder=arguments.models, detector=arguments.detector) as models:
        samples = Samples.of(protocol, collect(protocol, models, cache=None), gated=False)
        model = models.embedder_file.spec.id
    probes, templates = probes_of(samples), templates_of(samples)
    source = arguments.source or f"{arguments.data.resolve().name}, {protocol.how}"
    table = table_of(probes, templates, source=source, seed=arguments.seed)
    print(
        f"{table.comparisons} comparisons of {table.probes} fused probes; tail from cosine"
        f" {table.tail_similarity}: one in {1 / table.tail_rate:,.0f},"
        f" slope {table.tail_slope} ± {table.tail_slope_error}"
    )
    for result in check(probes, templates, seed=arguments.seed):
        print(
            f"list of {result.templates}: asked {result.fpir:.2%}, predicted"
            f" {result.low:.2%} to {result.high:.2%}, observed {result.observed:.2%} of"
            f" {result.strangers}{'' if result.held else '  OUTSIDE'}"
        )
    if arguments.table:
        _write(arguments.table, asdict(table))
    if arguments.accuracy:
        found = accuracy(samples, model=model, source=source, seed=arguments.seed)
        _write(arguments.accuracy, found)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m appliance.evaluation.calibrate")
    parser.add_argument("data", type=Path)
    parser.add_argument("--table", type=Path, help="write the table as JSON")
    parser.add_argument("--accuracy", type=Path, help="write the expected TPIR as JSON")
    parser.add_argument("--source", default="", help="what to say of the data, one line")
    parser.add_argument("--errata", type=Path, help="pictures to leave out, besides the folder's")
    parser.add_argument("--detector", help="name in the manifest")
    parser.add_argument("--models", type=Path, help="folder of the manifest")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def _write(path: Path, record: object) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
