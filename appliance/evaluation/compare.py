"""Probes against a gallery: for each probe its own subject's score and the best other one.

Enters: vectors and whose they are. Leaves: two scores per probe, from which every figure of an
identification test follows. Memory is bounded whatever the sizes: scores are made in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.types import Vectors

Indices = npt.NDArray[np.intp]
Scores = npt.NDArray[np.float64]
"""(n,) cosines; -inf where there is no vector, so that no threshold lets it pass."""

NOBODY = -1
_BLOCK_SCORES = 8_000_000
"""Cosines held at once: 32 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What a search found, one row per probe.

    Attributes:
        own: best cosine with a template of the probe's own subject; -inf without one.
        other: best cosine with a template of anybody else; -inf without one.
        nearest: whose template `other` is with, NOBODY without one.
    """

    own: Scores
    other: Scores
    nearest: Indices

    @property
    def rank_one(self) -> npt.NDArray[np.bool_]:
        """Whether the probe's own subject is the nearest of all."""
        return self.own > self.other


class Gallery:
    """Templates and whose they are.

    Args:
        vectors: (g, dim) float32, rows of norm 1.
        owners: (g,) subject numbers, 0 or more; a subject may have several templates.
    """

    def __init__(self, vectors: Vectors, owners: Indices) -> None:
        order = np.argsort(owners, kind="stable")
        self._vectors = np.ascontiguousarray(vectors[order])
        self._owners = owners[order]

    @property
    def templates(self) -> int:
        """How many there are."""
        return len(self._owners)

    @property
    def vectors(self) -> Vectors:
        """(g, dim), in the order of `owners`."""
        return self._vectors

    @property
    def owners(self) -> Indices:
        """(g,) subject numbers, increasing."""
        return self._owners

    def compare(self, probes: Vectors, subjects: Indices) -> Comparison:
        """Search with every probe.

        Args:
            probes: (p, dim) float32, rows of norm 1; a row of NaN is a probe without a face.
            subjects: (p,) whose they are; NOBODY if a probe is of nobody in the gallery.
        """
        count = len(probes)
        own, other = np.full(count, -np.inf), np.full(count, -np.inf)
        nearest = np.full(count, NOBODY)
        usable = np.flatnonzero(~np.isnan(probes).any(axis=1))
        rows = max(1, _BLOCK_SCORES // max(1, self.templates))
        for start in range(0, len(usable) if self.templates else 0, rows):
            chosen = usable[start : start + rows]
            self._block(probes[chosen], subjects[chosen], chosen, Comparison(own, other, nearest))
        return Comparison(own, other, nearest)

    def _block(self, probes: Vectors, subjects: Indices, rows: Indices, found: Comparison) -> None:
        scores = probes @ self._vectors.T  # (block, g)
        starts = np.searchsorted(self._owners, subjects, side="left")
        ends = np.searchsorted(self._owners, subjects, side="right")
        for index in np.flatnonzero(ends > starts):
            mine = scores[index, starts[index] : ends[index]]
            found.own[rows[index]] = mine.max()
            mine.fill(-np.inf)
        best = scores.argmax(axis=1)
        found.other[rows] = scores[np.arange(len(rows)), best]
        found.nearest[rows] = np.where(np.isfinite(found.other[rows]), self._owners[best], NOBODY)
