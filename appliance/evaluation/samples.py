"""Pictures and what they gave, lined up: what every measurement starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from appliance.errors import EvaluationError
from appliance.evaluation.cache import Sample
from appliance.evaluation.compare import Gallery, Indices
from appliance.evaluation.protocol import Picture, Protocol, Role
from appliance.types import Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Pictures and what they gave, row by row.

    Attributes:
        vectors: (n, dim) float32; NaN where there is none, or where the gate refused it.
        people: (n,) numbers of the subjects' names, sorted.
    """

    pictures: Sequence[Picture]
    samples: Sequence[Sample]
    vectors: Vectors
    people: Indices

    @classmethod
    def of(cls, protocol: Protocol, samples: Sequence[Sample], *, gated: bool) -> Samples:
        """Line up what was extracted.

        Args:
            protocol: of the pictures.
            samples: one per picture, in order.
            gated: a face that the quality gate refuses gives no vector, as in the node.

        Raises:
            EvaluationError: no picture of the gallery gave a template.
        """
        dim = next((len(s.vector) for s in samples if s.vector is not None), 0)
        vectors = np.full((len(samples), dim), np.nan, np.float32)
        for row, sample in enumerate(samples):
            if sample.vector is not None and not (gated and _refused(sample)):
                vectors[row] = sample.vector
        names = sorted({p.subject for p in protocol.pictures})
        numbers = {name: number for number, name in enumerate(names)}
        people = np.array([numbers[p.subject] for p in protocol.pictures], np.intp)
        lined = cls(protocol.pictures, samples, vectors, people)
        if not lined.rows(Role.GALLERY, usable=True).size:
            raise EvaluationError(f"{protocol.folder}: no picture of the gallery gave a template")
        return lined

    def rows(self, role: Role, *, usable: bool = False) -> Indices:
        """Rows of a role; those with a vector only, if usable."""
        chosen = np.array([p.role is role for p in self.pictures])
        if usable:
            chosen &= ~np.isnan(self.vectors).any(axis=1)
        return np.flatnonzero(chosen)

    def gallery(self) -> Gallery:
        """The templates."""
        rows = self.rows(Role.GALLERY, usable=True)
        return Gallery(self.vectors[rows], self.people[rows])


def _refused(sample: Sample) -> bool:
    return sample.quality is not None and sample.quality.refusal is not None
