"""A list in use: who on it is nearest to a probe, and how often a stranger gets so near.

A Watchlist is immutable, so whoever matches reads one reference and a push swaps it: no lock. The
one thing that happens to it is its end, when its templates are overwritten; what is matched after
that is nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from appliance.errors import TemplateError
from appliance.types import FalseMatch, Match, Vector, Vectors
from appliance.watchlist.bundle import WHOLE
from appliance.watchlist.calibration import rate_at, similarity_at, threshold_for
from appliance.watchlist.columns import Column
from appliance.watchlist.memory import Allocate

NOBODY = Match("", -1.0, -1.0)
"""What is found on a list that has been wiped: below every threshold."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a cosine means in one column: of this model, for so many templates.

    Attributes:
        model: id of the embedder.
        table: its false matches.
        templates: in the column.
        threshold: cosine from which a match is an alert.
    """

    model: str
    table: FalseMatch
    templates: int
    threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class Watchlist:
    """Subjects and their open templates.

    Attributes:
        list_id, version, deployment: as in its header.
        subjects: opaque references.
        lease_end_ns: CLOCK_BOOTTIME at which it is to be wiped.
        columns: open templates by the name of their column.
        scales: thresholds and error rates, by the same.
    """

    list_id: str
    version: int
    deployment: str
    subjects: tuple[str, ...]
    lease_end_ns: int
    columns: Mapping[str, Column]
    scales: Mapping[str, Scale]

    @property
    def model(self) -> str:
        """Id of the embedder for faces that nothing hides."""
        return self.scales[WHOLE].model

    @property
    def threshold(self) -> float:
        """Cosine from which a match of such a face is an alert."""
        return self.scales[WHOLE].threshold

    def nearest(self, probe: Vector, column: str = WHOLE) -> Match:
        """The subject nearest to a probe.

        Args:
            probe: made as the templates of that column were.
            column: one of `columns`.

        Returns:
            NOBODY if the list has been wiped.
        """
        return self.nearest_many(probe[np.newaxis], column)[0]

    def nearest_many(self, probes: Vectors, column: str = WHOLE) -> list[Match]:
        """The same for several probes, reading the templates once."""
        found = self.columns[column].search(probes)
        if found is None:
            return [NOBODY] * len(probes)
        return [
            Match(self.subjects[subject], similarity, other) for subject, similarity, other in found
        ]

    def false_alert_rate(self, similarity: float, column: str = WHOLE) -> float:
        """The chance that a passer-by who is not on the list scores this high or higher."""
        scale = self.scales[column]
        return rate_at(scale.table, similarity, templates=scale.templates)

    def threshold_in(self, column: str, share: float) -> float:
        """Cosine from which a match is an alert if a column may use a share of the tolerable rate.

        Args:
            column: one of `columns`.
            share: in (0, 1]; 1 gives the column's own threshold.
        """
        scale = self.scales[column]
        if share >= 1.0:
            return scale.threshold
        rate = rate_at(scale.table, scale.threshold, templates=scale.templates)
        stricter = similarity_at(scale.table, rate * share, templates=scale.templates)
        return max(scale.threshold, stricter)

    def lease_left_s(self, boot_ns: int) -> int:
        """Whole seconds until the list is to be wiped."""
        return max(0, self.lease_end_ns - boot_ns) // 1_000_000_000

    def wipe(self) -> None:
        """Overwrite every template."""
        for column in self.columns.values():
            column.wipe()


def watchlist_of(
    *,
    list_id: str,
    version: int,
    deployment: str,
    subjects: Sequence[str],
    counts: Sequence[int],
    vectors: Vectors,
    model: str,
    table: FalseMatch,
    target_fpir: float,
    threshold_floor: float,
    lease_end_ns: int,
    allocate: Allocate,
) -> Watchlist:
    """A list straight from templates, with one column: for evaluation, benchmarks and tests.

    Args:
        list_id: as in Watchlist.
        version: as in Watchlist.
        deployment: as in Watchlist.
        subjects: opaque references.
        counts: rows of each subject, in the subjects' order.
        vectors: (n, dim), rows grouped by subject.
        model: id of their embedder.
        table: its false matches.
        target_fpir: tolerable false alerts per passer-by who is not on the list.
        threshold_floor: no lower threshold than this.
        lease_end_ns: as in Watchlist.
        allocate: makes the secret memory.

    Raises:
        TemplateError: counts do not add up to the rows, or are not one per subject.
        ThresholdError: the list cannot be served at that rate.
    """
    if len(counts) != len(subjects) or sum(counts) != len(vectors):
        raise TemplateError(
            f"{len(counts)} counts that add up to {sum(counts)}:"
            f" {len(subjects)} subjects have {len(vectors)} templates"
        )
    rows, dim = vectors.shape
    threshold = threshold_for(table, templates=rows, fpir=target_fpir, floor=threshold_floor)
    column = Column(templates=rows, dim=dim, allocate=allocate)
    column.rows[:] = vectors
    column.belong(counts)
    return Watchlist(
        list_id=list_id,
        version=version,
        deployment=deployment,
        subjects=tuple(subjects),
        lease_end_ns=lease_end_ns,
        columns={WHOLE: column},
        scales={WHOLE: Scale(model, table, rows, threshold)},
    )
