"""Several pictures of a person fused into one template, as the node does with a track.

Enters: vectors and whose they are. Leaves: fused probes, drawn by a seed. Pure.
"""

from __future__ import annotations

import numpy as np

from appliance.evaluation.compare import Indices
from appliance.types import Vectors

DRAWS = 20
"""Fused probes per person, each of other pictures of hers, as far as there are."""

MAX_FUSED = 5
"""What the node fuses by default: config.Decision.embeddings."""


def fused(
    vectors: Vectors, subjects: Indices, *, pictures: int, seed: int, draws: int = DRAWS
) -> tuple[Vectors, Indices]:
    """Mean vectors of `pictures` pictures of a person.

    Args:
        vectors: (n, dim) float32; rows of NaN are left out.
        subjects: (n,) whose they are.
        pictures: in each probe; people who have fewer usable ones are left out.
        seed: of the draws.
        draws: probes per person; a person with exactly `pictures` pictures has one.

    Returns:
        (m, dim) float32 of norm 1, and (m,) whose they are.
    """
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(~np.isnan(vectors).any(axis=1))
    probes: list[Vectors] = []
    whose: list[int] = []
    for subject in np.unique(subjects[usable]):
        rows = usable[subjects[usable] == subject]
        if len(rows) < pictures:
            continue
        chosen = [rows] if len(rows) == pictures else _draws(rows, pictures, draws, rng)
        probes += [mean(vectors[rows]) for rows in chosen]
        whose += [int(subject)] * len(chosen)
    empty = np.zeros((0, vectors.shape[1]), np.float32)
    return (np.stack(probes) if probes else empty), np.array(whose, np.intp)


def mean(vectors: Vectors) -> Vectors:
    """The mean of (k, dim) unit vectors, at norm 1: what tracking.Evidence does.

    Written again rather than used: a track's evidence is a buffer to be wiped, this is a study of
    pictures. tests/rooms/test_evaluation_compare.py holds them equal.
    """
    centre = vectors.mean(axis=0)
    return np.asarray(centre / np.linalg.norm(centre), np.float32)


def _draws(rows: Indices, pictures: int, draws: int, rng: np.random.Generator) -> list[Indices]:
    return [rng.choice(rows, pictures, replace=False) for _ in range(draws)]
