"""What one track has shown so far: a bounded number of vectors, fused by their mean, then gone."""

from __future__ import annotations

import math

import numpy as np

from appliance.types import Vector, Vectors

_LEAST_NORM = 1e-3
"""Of a mean of unit vectors: below it they cancel out and have no common direction."""


class Evidence:
    """The vectors of one track.

    They are fused by the mean: measured on LFW, the mean of five pictures finds 97-98 % where one
    finds 84-92 % and the best of the five 89-95 %; weights by quality add nothing.

    Args:
        dim: length of a vector.
        capacity: vectors at most.
    """

    def __init__(self, dim: int, capacity: int) -> None:
        self._vectors: Vectors = np.zeros((capacity, dim), np.float32)
        self._count = 0

    @property
    def count(self) -> int:
        """Vectors held."""
        return self._count

    @property
    def capacity(self) -> int:
        """Vectors that it can hold."""
        return len(self._vectors)

    def add(self, vector: Vector) -> None:
        """Copy a vector in.

        Args:
            vector: (dim,) float32, norm 1.

        Raises:
            ValueError: another shape, or it is full.
        """
        if self._count == self.capacity:
            raise ValueError(f"evidence is full: {self.capacity} vectors")
        if vector.shape != self._vectors.shape[1:]:
            raise ValueError(f"a vector of shape {vector.shape}, not {self._vectors.shape[1:]}")
        self._vectors[self._count] = vector
        self._count += 1

    def fuse(self, out: Vector | None = None) -> Vector:
        """The mean of all vectors held, at norm 1.

        Args:
            out: (dim,) float32, overwritten and returned; a new array if None.

        Raises:
            ValueError: none is held, or they cancel each other out.
        """
        if self._count == 0:
            raise ValueError("no evidence to fuse")
        fused: Vector = np.mean(self._vectors[: self._count], axis=0, out=out)
        norm = math.sqrt(float(fused @ fused))
        if norm < _LEAST_NORM:
            raise ValueError(f"{self._count} vectors cancel out: their mean has norm {norm:.1e}")
        fused /= norm
        return fused

    def wipe(self) -> None:
        """Overwrite every vector; it can be used anew."""
        self._vectors.fill(0)
        self._count = 0
