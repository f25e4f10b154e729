"""What makes decisions better, measured one by one on the same people: keep what helps.

    python -m appliance.evaluation.study DATA

Enters: samples of a protocol. Leaves: a table of variants, each with its TPIR at FPIR 1 % and 0.3 %
and the difference to its base with a 95 % interval, drawn by people and alike for both, so that
what they share cancels out.

picture    one picture, one template: mirrored copies, the quality gate, scores normalised
templates  several templates per subject, for those who have the pictures
person     several pictures fused, in several ways
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.evaluation.assess import FPIRS, trials_of
from appliance.evaluation.compare import Gallery, Indices
from appliance.evaluation.evaluate import collect
from appliance.evaluation.identification import (
    RESAMPLES,
    Bootstrap,
    Operating,
    Trials,
    interval,
)
from appliance.evaluation.models import load as load_models
from appliance.evaluation.persons import MAX_FUSED, mean
from appliance.evaluation.protocol import Role
from appliance.evaluation.protocol import load as load_protocol
from appliance.evaluation.samples import Samples
from appliance.types import Vectors

Floats = npt.NDArray[np.float64]

DRAWS = 10
_TOP = 100
"""Of the cohort, the nearest ones that normalise a score."""
_SEED = 1


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of doing it.

    Attributes:
        points: at each of assess.FPIRS.
        gain: of TPIR over the base at each of them, with its interval; zeros for the base itself.
    """

    group: str
    name: str
    points: tuple[Operating, ...]
    gain: tuple[tuple[float, float, float], ...]


def compared(
    group: str, variants: Iterator[tuple[str, Trials]], *, resamples: int = RESAMPLES
) -> Iterator[Variant]:
    """Measure each against the first; all must be of the same probes in the same order."""
    base: Floats | None = None
    first: tuple[Operating, ...] = ()
    for name, trials in variants:
        bootstrap = Bootstrap(trials, seed=_SEED, resamples=resamples)
        points = bootstrap.at_fpirs(FPIRS)
        resampled = bootstrap.resampled(FPIRS)
        base, first = (resampled, points) if base is None else (base, first)
        gain = tuple(
            (
                points[i].tpir.value - first[i].tpir.value,
                *interval(resampled[:, i] - base[:, i]),
            )
            for i in range(len(FPIRS))
        )
        yield Variant(group, name, points, gain)


def per_picture(plain: Samples, flipped: Samples, gated: Samples) -> Iterator[tuple[str, Trials]]:
    """One picture against one template."""
    yield "one picture, one template", _trials(plain)
    yield "mean with the mirrored face", _trials(flipped)
    yield "quality gate of the node, refusals count as misses", _trials(gated)


def normalised(plain: Samples) -> Iterator[tuple[str, Trials]]:
    """Scores set against those of a cohort: strangers who take no other part.

    The cohort is every second stranger; the others are the ones who walk by, here and in the base.
    """
    strangers = plain.rows(Role.NONMATED, usable=True)
    cohort, walking = plain.vectors[strangers[::2]], strangers[1::2]
    gallery = plain.gallery()
    mated = plain.rows(Role.MATED, usable=True)
    probes, people = plain.vectors[mated], plain.people[mated]
    walkers, walker_people = plain.vectors[walking], plain.people[walking]

    def of(normalise: Callable[[Vectors], Floats]) -> Trials:
        return _from_scores(
            normalise(probes), people, normalise(walkers), walker_people, gallery.owners
        )

    template = _top(gallery.vectors @ cohort.T)  # mean and deviation per template

    def zero(vectors: Vectors) -> Floats:
        return (vectors @ gallery.vectors.T - template[0]) / template[1]

    def probe(vectors: Vectors) -> Floats:
        centre, spread = _top(vectors @ cohort.T)
        return (vectors @ gallery.vectors.T - centre[:, None]) / spread[:, None]

    yield (
        "half of the strangers, plain cosine",
        of(lambda vectors: np.asarray(vectors @ gallery.vectors.T, np.float64)),
    )
    yield "normalised per template (z)", of(zero)
    yield "normalised per probe (t)", of(probe)
    yield "both (adaptive s)", of(lambda vectors: (zero(vectors) + probe(vectors)) / 2)


def templates(plain: Samples) -> Iterator[tuple[str, Trials]]:
    """Up to three pictures of a subject on the list; the probes are the pictures after those.

    Only subjects with four pictures are mated here; all others stay on the list with one.
    """
    gallery, mated = plain.rows(Role.GALLERY, usable=True), plain.rows(Role.MATED, usable=True)
    more: list[int] = []
    probes: list[int] = []
    for person in np.unique(plain.people[mated]):
        rows = mated[plain.people[mated] == person]
        if len(rows) > 2:  # noqa: PLR2004 - two more templates and a probe
            more += rows[:2].tolist()
            probes += rows[2:].tolist()
    strangers = plain.rows(Role.NONMATED, usable=True)
    rows = np.concatenate([gallery, np.array(more, np.intp)])
    owners = plain.people[rows]
    people = np.unique(owners)
    fused = np.array([mean(plain.vectors[rows[owners == p]]) for p in people], np.float32)
    lists = {
        "one template": Gallery(plain.vectors[gallery], plain.people[gallery]),
        "three templates, the nearest counts": Gallery(plain.vectors[rows], owners),
        "three pictures fused into one template": Gallery(fused, people),
    }
    for name, listed in lists.items():
        yield name, _searched(listed, plain, np.array(probes, np.intp), strangers)


def per_person(plain: Samples, *, pictures: int) -> Iterator[tuple[str, Trials]]:
    """Several pictures of a person made into one decision."""
    gallery = plain.gallery()
    sets, people = _draws(plain, pictures)
    vectors = plain.vectors[sets]  # (m, pictures, dim)
    worth = _worth(plain)[sets]  # (m, pictures)

    def single(scores: Callable[[Floats], Floats]) -> Trials:
        """By the scores of each picture, combined."""
        each = np.stack([vectors[:, i] @ gallery.vectors.T for i in range(pictures)])
        return _left_out(scores(each), people, gallery.owners)

    def fused(weights: Floats) -> Trials:
        centre = (vectors * weights[:, :, None]).sum(axis=1)
        centre /= np.linalg.norm(centre, axis=1, keepdims=True)
        return _left_out(centre @ gallery.vectors.T, people, gallery.owners)

    best = np.zeros_like(worth)
    best[np.arange(len(worth)), worth.argmax(axis=1)] = 1.0
    one = np.zeros_like(worth)
    one[:, 0] = 1.0
    yield f"{pictures} pictures: mean of the vectors", fused(np.ones_like(worth))
    yield "mean weighted by sharpness and size", fused(worth)
    yield "highest score", single(lambda each: np.asarray(each.max(axis=0)))
    yield "mean score", single(lambda each: np.asarray(each.mean(axis=0)))
    yield "only the sharpest and largest", fused(best)
    yield "only one of them", fused(one)


def _trials(samples: Samples) -> Trials:
    return _searched(
        samples.gallery(), samples, samples.rows(Role.MATED), samples.rows(Role.NONMATED)
    )


def _searched(gallery: Gallery, samples: Samples, mated: Indices, strangers: Indices) -> Trials:
    return trials_of(
        gallery.compare(samples.vectors[mated], samples.people[mated]),
        samples.people[mated],
        gallery.compare(samples.vectors[strangers], samples.people[strangers]),
        samples.people[strangers],
    )


def _from_scores(
    mated: Floats, people: Indices, strangers: Floats, stranger_people: Indices, owners: Indices
) -> Trials:
    """From whole score matrices, (probes, templates)."""
    own = np.where(people[:, None] == owners, mated, -np.inf).max(axis=1)
    other = np.where(people[:, None] == owners, -np.inf, mated).max(axis=1)
    return Trials(
        np.where(own > other, own, -np.inf), people, strangers.max(axis=1), stranger_people
    )


def _left_out(scores: Floats, people: Indices, owners: Indices) -> Trials:
    """Everybody is a stranger to the list without her own template."""
    mine = people[:, None] == owners
    own, other = (
        np.where(mine, scores, -np.inf).max(axis=1),
        np.where(mine, -np.inf, scores).max(axis=1),
    )
    listed = mine.any(axis=1)
    return Trials(np.where(own > other, own, -np.inf)[listed], people[listed], other, people)


def _draws(samples: Samples, pictures: int) -> tuple[Indices, Indices]:
    """(m, pictures) rows and (m,) people: several draws of everybody with MAX_FUSED pictures."""
    rng = np.random.default_rng(_SEED)
    rows = np.concatenate([samples.rows(r, usable=True) for r in Role if r is not Role.GALLERY])
    sets, people = [], []
    for person in np.unique(samples.people[rows]):
        mine = rows[samples.people[rows] == person]
        if len(mine) >= MAX_FUSED:
            sets += [rng.choice(mine, pictures, replace=False) for _ in range(DRAWS)]
            people += [int(person)] * DRAWS
    return np.array(sets, np.intp), np.array(people, np.intp)


def _worth(samples: Samples) -> Floats:
    """Sharpness times size of each picture's face; 0 without one."""
    return np.array(
        [
            0.0 if s.quality is None else s.quality.sharpness * s.quality.eye_distance_px
            for s in samples.samples
        ]
    )


def _top(scores: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Mean and deviation of each row's highest scores."""
    highest = np.sort(scores, axis=1)[:, -_TOP:]
    return np.asarray(highest.mean(axis=1)), np.asarray(highest.std(axis=1))


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m appliance.evaluation.study")
    parser.add_argument("data", type=Path)
    parser.add_argument("--errata", type=Path, help="pictures to leave out, besides the folder's")
    arguments = parser.parse_args(argv)
    protocol = load_protocol(arguments.data, seed=_SEED, errata=arguments.errata)
    with load_models() as models:
        looked, mirrored = (
            collect(protocol, models, cache=None, flip=flip) for flip in (False, True)
        )
    plain = Samples.of(protocol, looked, gated=False)
    flipped = Samples.of(protocol, mirrored, gated=False)
    gated = Samples.of(protocol, looked, gated=True)
    print("| | TPIR at FPIR 1 % | gain | at 0.3 % | gain |\n|---|---|---|---|---|")
    for group, variants in (
        ("picture", per_picture(plain, flipped, gated)),
        ("cohort", normalised(plain)),
        ("templates", templates(plain)),
        ("person of 3", per_person(plain, pictures=3)),
        ("person of 5", per_person(plain, pictures=MAX_FUSED)),
    ):
        for variant in compared(group, variants):
            print(_row(variant), flush=True)
    return 0


def _row(variant: Variant) -> str:
    cells = []
    for point, (gain, low, high) in zip(variant.points, variant.gain, strict=True):
        rate = point.tpir
        cells.append(f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]")
        cells.append(f"{100 * gain:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
    return f"| {variant.group}: {variant.name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
