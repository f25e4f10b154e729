"""An open-set evaluation, from samples to figures. No file is read or written here.

1. templates of the gallery, probes with and without a face
2. per picture: rates at several false-alert rates, the DET curve, rank one
3. per person: several pictures fused, as the node fuses a track
4. verification, for comparison with papers
5. breakdown by metadata
6. what a person should look at: highest strangers, lowest mated, the same picture twice
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from appliance.evaluation.compare import Comparison, Gallery, Indices
from appliance.evaluation.extract import NO_FACE
from appliance.evaluation.findings import Pair, duplicates, highest, lowest
from appliance.evaluation.groups import Group, break_down
from appliance.evaluation.identification import (
    Bootstrap,
    Operating,
    Rate,
    Trials,
    threshold_at,
    tpir,
)
from appliance.evaluation.persons import MAX_FUSED, fused
from appliance.evaluation.promise import Check, kept
from appliance.evaluation.protocol import Role
from appliance.evaluation.samples import Samples
from appliance.evaluation.verification import Verification, verify
from appliance.types import FalseMatch

FPIRS = (0.01, 0.003)
CURVE_FPIRS = tuple(float(rate) for rate in np.logspace(-3, -0.5, 26))
FUSED = (1, 3, MAX_FUSED)


@dataclass(frozen=True, slots=True)
class Acquired:
    """What became of the pictures of one role.

    Attributes:
        unreadable, faceless: no picture, no face (failure to detect).
        refused: by the quality gate; with the two above, failure to acquire.
        several: showed more than one face.
    """

    pictures: int
    unreadable: int
    faceless: int
    refused: int
    several: int

    @property
    def failed(self) -> int:
        """Pictures that gave no probe."""
        return self.unreadable + self.faceless + self.refused


@dataclass(frozen=True, slots=True)
class Curve:
    """TPIR over FPIR with its 95 % band."""

    fpir: tuple[float, ...]
    tpir: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Fused:
    """The test per person: so many pictures fused into one probe; TPIR at CURVE_FPIRS as well."""

    pictures: int
    points: tuple[Operating, ...]
    curve: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was measured."""

    acquired: dict[str, Acquired]
    templates: int
    subjects: int
    rank_one: Rate
    points: tuple[Operating, ...]
    curve: Curve
    persons: tuple[Fused, ...]
    verification: Verification | None
    groups: tuple[Group, ...]
    promises: tuple[Check, ...]
    strangers: tuple[Pair, ...]
    misses: tuple[Pair, ...]
    duplicates: tuple[str, ...]


def assess(
    samples: Samples,
    *,
    seed: int,
    metadata: Mapping[str, Mapping[str, str]],
    thresholds: Sequence[float] = (),
    table: FalseMatch | None = None,
) -> Evaluation:
    """Measure.

    Args:
        samples: of a whole protocol.
        seed: of everything that is drawn.
        metadata: by column and subject, the value; subjects without one are left out of it.
        thresholds: report at these, besides FPIRS: the node's own, from its model's calibration.
        table: of the embedder, held to its word on these strangers; None if it has none.
    """
    gallery = samples.gallery()
    mated, strangers = samples.rows(Role.MATED), samples.rows(Role.NONMATED)
    found = gallery.compare(samples.vectors[mated], samples.people[mated])
    alarms = gallery.compare(samples.vectors[strangers], samples.people[strangers])
    trials = trials_of(found, samples.people[mated], alarms, samples.people[strangers])
    bootstrap = Bootstrap(trials, seed=seed)
    points = bootstrap.at_fpirs(FPIRS)
    low, high = bootstrap.tpir_at_fpirs(CURVE_FPIRS)
    return Evaluation(
        acquired={role.value: _acquired(samples, role) for role in Role if samples.rows(role).size},
        templates=gallery.templates,
        subjects=len(np.unique(gallery.owners)),
        rank_one=bootstrap.at_threshold(-np.finfo(np.float64).max).tpir,
        points=points + bootstrap.at_thresholds(thresholds),
        curve=Curve(
            CURVE_FPIRS,
            tuple(tpir(trials, threshold_at(trials, rate)) for rate in CURVE_FPIRS),
            tuple(low.tolist()),
            tuple(high.tolist()),
        ),
        persons=_persons(samples, gallery, seed),
        verification=verify(samples.vectors, samples.people, seed=seed),
        groups=_groups(samples, trials, metadata, points[0].threshold, bootstrap),
        promises=tuple(kept(table, trials.nonmated, templates=gallery.templates) if table else ()),
        strangers=highest(samples, strangers, alarms),
        misses=lowest(samples, mated, found),
        duplicates=duplicates(samples),
    )


def trials_of(
    mated: Comparison, mated_subject: Indices, strangers: Comparison, stranger_subject: Indices
) -> Trials:
    """The scores that count: of a mated probe its own subject's, if that one is the nearest."""
    return Trials(
        mated=np.where(mated.rank_one, mated.own, -np.inf),
        mated_subject=mated_subject,
        nonmated=strangers.other,
        nonmated_subject=stranger_subject,
    )


def person_trials(samples: Samples, gallery: Gallery, *, pictures: int, seed: int) -> Trials:
    """Fused probes of everybody with MAX_FUSED usable pictures outside the gallery.

    Strangers are those who are not on the list, and those who are, with their own template left
    out: that is a search of a list that they are not on.
    """
    rows = np.concatenate([samples.rows(r, usable=True) for r in Role if r is not Role.GALLERY])
    people, counts = np.unique(samples.people[rows], return_counts=True)
    rows = rows[np.isin(samples.people[rows], people[counts >= MAX_FUSED])]
    probes, whose = fused(samples.vectors[rows], samples.people[rows], pictures=pictures, seed=seed)
    found = gallery.compare(probes, whose)
    listed = np.isin(whose, gallery.owners)
    return Trials(
        mated=np.where(found.rank_one, found.own, -np.inf)[listed],
        mated_subject=whose[listed],
        nonmated=found.other,
        nonmated_subject=whose,
    )


def _persons(samples: Samples, gallery: Gallery, seed: int) -> tuple[Fused, ...]:
    results: list[Fused] = []
    for pictures in FUSED:
        trials = person_trials(samples, gallery, pictures=pictures, seed=seed)
        if not len(trials.mated) or not len(trials.nonmated):
            return ()
        bootstrap = Bootstrap(trials, seed=seed)
        curve = tuple(tpir(trials, threshold_at(trials, rate)) for rate in CURVE_FPIRS)
        points = bootstrap.at_fpirs(FPIRS)
        results.append(Fused(pictures, points, curve))
    return tuple(results)


def _groups(
    samples: Samples,
    trials: Trials,
    metadata: Mapping[str, Mapping[str, str]],
    threshold: float,
    bootstrap: Bootstrap,
) -> tuple[Group, ...]:
    mated, strangers = samples.rows(Role.MATED), samples.rows(Role.NONMATED)
    groups: list[Group] = []
    for column, values in metadata.items():
        labels = np.array([values.get(p.subject, "") for p in samples.pictures])
        groups += break_down(
            column,
            labels[mated],
            labels[strangers],
            trials,
            threshold=threshold,
            bootstrap=bootstrap,
        )
    return tuple(groups)


def _acquired(samples: Samples, role: Role) -> Acquired:
    rows = samples.rows(role)
    usable = set(samples.rows(role, usable=True).tolist())
    mine = [samples.samples[row] for row in rows]
    faceless = sum(s.failure == NO_FACE for s in mine)
    unreadable = sum(bool(s.failure) for s in mine) - faceless
    return Acquired(
        pictures=len(mine),
        unreadable=unreadable,
        faceless=faceless,
        refused=len(mine) - len(usable) - unreadable - faceless,
        several=sum(s.faces > 1 for s in mine),
    )
