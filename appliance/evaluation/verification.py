"""Are two pictures of the same person? Not what the node does, but what papers report.

Enters: vectors and whose they are. Leaves: accuracy over ten folds as LFW's View 2 has it, and
TAR at FAR. The folds hold different people, the pairs are drawn by a seed: LFW's own list of pairs
is not needed, and a figure on other pairs is comparable only within its interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.evaluation.compare import Indices
from appliance.types import Vectors

FOLDS = 10
PAIRS_PER_FOLD = 300
"""Of the same person, and as many of different ones: LFW's numbers."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Verification:
    """The result.

    Attributes:
        accuracy: mean over the folds; each fold's threshold is chosen on the other nine.
        deviation: standard error of that mean.
        tar_at_far: true-accept rate at each false-accept rate, over all pairs.
        same, different: how many pairs of each.
    """

    accuracy: float
    deviation: float
    tar_at_far: dict[float, float]
    same: int
    different: int


def verify(
    vectors: Vectors, subjects: Indices, *, seed: int, fars: tuple[float, ...] = (0.01, 0.001)
) -> Verification | None:
    """Measure on pairs.

    Args:
        vectors: (n, dim) float32; rows of NaN are left out, which is generous: TPIR counts them.
        subjects: (n,) whose they are.
        seed: of folds and pairs.
        fars: false-accept rates to report at.

    Returns:
        None if some fold has no two pictures of one person, or only one person.
    """
    usable = ~np.isnan(vectors).any(axis=1)
    vectors, subjects = vectors[usable], subjects[usable]
    rng = np.random.default_rng(seed)
    people = rng.permutation(np.unique(subjects))
    folds = [
        _pairs(vectors, subjects, set(people[fold::FOLDS].tolist()), rng) for fold in range(FOLDS)
    ]
    if any(not len(same) or not len(different) for same, different in folds):
        return None
    accuracies = [
        _accuracy(folds[held], _best([f for i, f in enumerate(folds) if i != held]))
        for held in range(FOLDS)
    ]
    same = np.concatenate([fold[0] for fold in folds])
    different = np.sort(np.concatenate([fold[1] for fold in folds]))[::-1]
    return Verification(
        accuracy=float(np.mean(accuracies)),
        deviation=float(np.std(accuracies, ddof=1) / np.sqrt(FOLDS)),
        tar_at_far={
            far: float(np.mean(same > different[int(far * len(different))])) for far in fars
        },
        same=len(same),
        different=len(different),
    )


def _pairs(
    vectors: Vectors, subjects: Indices, people: set[int], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Scores of pairs of the same person and of different people, among these people."""
    rows = np.flatnonzero(np.isin(subjects, list(people)))
    whose = subjects[rows]
    several = [rows[whose == person] for person in np.unique(whose)]
    several = [mine for mine in several if len(mine) > 1]
    if not several or len(people) < 2:  # noqa: PLR2004 - a pair
        return np.zeros(0), np.zeros(0)
    same = [
        rng.choice(several[int(rng.integers(len(several)))], 2, replace=False)
        for _ in range(PAIRS_PER_FOLD)
    ]
    different: list[Indices] = []
    while len(different) < PAIRS_PER_FOLD:
        pair = rng.choice(rows, 2, replace=False)
        if subjects[pair[0]] != subjects[pair[1]]:
            different.append(pair)
    return _scores(vectors, same), _scores(vectors, different)


def _scores(vectors: Vectors, pairs: list[Indices]) -> Floats:
    left, right = np.array(pairs).T
    return np.asarray(np.einsum("nd,nd->n", vectors[left], vectors[right]), np.float64)


def _accuracy(fold: tuple[Floats, Floats], threshold: float) -> float:
    same, different = fold
    right = np.sum(same >= threshold) + np.sum(different < threshold)
    return float(right / (len(same) + len(different)))


def _best(folds: list[tuple[Floats, Floats]]) -> float:
    """The threshold that is right most often."""
    same = np.sort(np.concatenate([fold[0] for fold in folds]))
    different = np.sort(np.concatenate([fold[1] for fold in folds]))
    candidates = np.concatenate([same, different])
    wrong = np.searchsorted(same, candidates, side="left") + (
        len(different) - np.searchsorted(different, candidates, side="left")
    )
    return float(candidates[int(np.argmin(wrong))])
