"""What a person should look at before believing an evaluation: in public data, labels are wrong.

Highest strangers, lowest listed people, and the same picture under two names. Paths only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from appliance.evaluation.compare import NOBODY, Comparison, Indices
from appliance.evaluation.protocol import Role
from appliance.evaluation.samples import Samples
from appliance.types import Vectors

_LISTED = 20
_TOO_ALIKE = 0.97
"""Cosine from which two files with other bytes are called the same picture: re-encoded, cropped or
resized. Different pictures of one person reach 0.9."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures that somebody should look at."""

    similarity: float
    probe: Path
    probe_subject: str
    template: Path
    template_subject: str


def _template_row(samples: Samples, vector: Vectors, person: int) -> int:
    """The gallery picture of a person that is nearest to a probe."""
    rows = samples.rows(Role.GALLERY, usable=True)
    rows = rows[samples.people[rows] == person]
    return int(rows[int(np.argmax(samples.vectors[rows] @ vector))])


def _pair(samples: Samples, row: int, person: int, similarity: float) -> Pair:
    template = samples.pictures[_template_row(samples, samples.vectors[row], person)]
    probe = samples.pictures[row]
    return Pair(similarity, probe.path, probe.subject, template.path, template.subject)


def highest(samples: Samples, rows: Indices, found: Comparison) -> tuple[Pair, ...]:
    """Strangers who score highest: errors of labels come first."""
    order = np.argsort(-found.other, kind="stable")[:_LISTED]
    return tuple(
        _pair(samples, int(rows[i]), int(found.nearest[i]), float(found.other[i]))
        for i in order
        if found.nearest[i] != NOBODY
    )


def lowest(samples: Samples, rows: Indices, found: Comparison) -> tuple[Pair, ...]:
    """Mated probes that score lowest with their own subject."""
    order = [i for i in np.argsort(found.own, kind="stable") if np.isfinite(found.own[i])]
    return tuple(
        _pair(samples, int(rows[i]), int(samples.people[rows[i]]), float(found.own[i]))
        for i in order[:_LISTED]
    )


def duplicates(samples: Samples) -> tuple[str, ...]:
    """One picture under two subjects poisons a gallery; within one it flatters the figures."""
    by_content: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples.samples):
        if sample.sha256 is not None:
            by_content[sample.sha256].append(row)
    said: list[str] = []
    for rows in by_content.values():
        names = Counter(samples.pictures[row].subject for row in rows)
        if len(rows) > 1:
            where = ", ".join(str(samples.pictures[row].path) for row in rows)
            whose = "under two subjects" if len(names) > 1 else "twice"
            said.append(f"the same picture {whose}: {where}")
    return tuple(said + _alike(samples))


def _alike(samples: Samples) -> list[str]:
    """Pictures outside the gallery that are another subject's template in all but their bytes."""
    gallery = samples.gallery()
    rows = np.concatenate([samples.rows(r, usable=True) for r in Role])
    found = gallery.compare(samples.vectors[rows], samples.people[rows])
    seen: set[frozenset[int]] = set()
    said: list[str] = []
    for i in np.flatnonzero(found.other >= _TOO_ALIKE):
        other = _template_row(samples, samples.vectors[rows[i]], int(found.nearest[i]))
        pair = frozenset((int(rows[i]), other))
        if pair in seen or samples.samples[rows[i]].sha256 == samples.samples[other].sha256:
            continue
        seen.add(pair)
        a, b = samples.pictures[rows[i]], samples.pictures[other]
        said.append(
            f"nearly the same picture under two subjects (cosine {found.other[i]:.3f}):"
            f" {a.path}, {b.path}"
        )
    return said
