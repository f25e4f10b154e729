"""The templates of one column in secret memory, and the exhaustive search through them.

Templates lie in panels of PANEL_ROWS, each panel transposed: a search is a row vector times a
panel, one after the other, and so reads every template once, in the order of memory, while a
panel's scores stay in the processor's cache. No index, no early end: a list is searched whole.

Matrix times matrix is not used although it would serve many probes faster: BLAS copies both into
buffers of its own, and templates would lie open outside of secret memory.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from appliance.types import Vectors
from appliance.watchlist.memory import Allocate

PANEL_ROWS = 1024
_FLOAT32_BYTES = 4

Nearest = tuple[int, float, float]
"""Place of the subject, its cosine, and the best cosine of any other subject (-1 for none)."""


class Column:
    """Templates that one kind of probe is compared with. Filled by one thread, then searched.

    Searches and `wipe` may come from any thread; a search that is under way is waited for.

    Args:
        templates: rows, 1 or more.
        dim: numbers in a row.
        allocate: makes the secret memory.

    Attributes:
        templates: as given.
        dim: as given.
    """

    def __init__(self, *, templates: int, dim: int, allocate: Allocate) -> None:
        self.templates, self.dim = templates, dim
        self._memory = allocate(templates * dim * _FLOAT32_BYTES)
        numbers = np.frombuffer(self._memory.view, np.float32)
        self._panels = [
            numbers[first * dim : (first + PANEL_ROWS) * dim].reshape(dim, -1)
            for first in range(0, templates, PANEL_ROWS)
        ]
        self._scores = np.zeros(PANEL_ROWS, np.float32)
        self._starts: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self._lock = threading.Lock()

    def fill(self, first: int, rows: Vectors) -> None:
        """Put rows in their place.

        Args:
            first: place of the first of them.
            rows: (n, dim) float32 of norm 1.
        """
        done = 0
        while done < len(rows):
            panel, place = divmod(first + done, PANEL_ROWS)
            count = min(PANEL_ROWS - place, len(rows) - done)
            self._panels[panel][:, place : place + count] = rows[done : done + count].T
            done += count

    def belong(self, counts: Sequence[int]) -> None:
        """Say whose the rows are: so many of each subject, in the subjects' order."""
        self._starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))

    def search(self, probes: Vectors) -> list[Nearest] | None:
        """The nearest subject of each probe, by the best of its templates.

        Args:
            probes: (n, dim) float32 of norm 1, C-contiguous.

        Returns:
            None if the templates have been wiped.
        """
        with self._lock:
            if not self._panels:
                return None
            found = [_Best() for _ in probes]
            for number, panel in enumerate(self._panels):
                scores = self._scores[: panel.shape[1]]
                for probe, best in zip(probes, found, strict=True):
                    np.dot(probe, panel, out=scores)
                    # Written so that a probe that is no number (NaN) is looked at, once.
                    if not scores.max() <= best.runner_up:
                        self._merge(best, scores, number * PANEL_ROWS)
            self._scores.fill(0)
            return [best.nearest() for best in found]

    def wipe(self) -> None:
        """Overwrite the templates. Later searches find None."""
        with self._lock:
            self._panels = []
            self._memory.wipe()

    def _merge(self, best: _Best, scores: npt.NDArray[np.float32], first: int) -> None:
        """Weigh a panel's scores against what the panels before it had."""
        top = int(scores.argmax())
        subject = int(np.searchsorted(self._starts, first + top, side="right")) - 1
        begin, end = (max(0, int(row) - first) for row in self._starts[subject : subject + 2])
        others = max(
            float(scores[:begin].max(initial=-math.inf)),
            float(scores[end:].max(initial=-math.inf)),
        )
        best.weigh(subject, float(scores[top]), others)


class _Best:
    """The best so far of one probe."""

    __slots__ = ("runner_up", "similarity", "subject")

    def __init__(self) -> None:
        self.subject = -1
        self.similarity = self.runner_up = -math.inf

    def weigh(self, subject: int, similarity: float, others: float) -> None:
        """Take in the best of some more rows: its subject, and the best of other subjects."""
        if subject == self.subject:
            self.similarity = max(self.similarity, similarity)
            self.runner_up = max(self.runner_up, others)
        elif not similarity <= self.similarity:
            # What was best is another subject's, and no worse than what was second.
            self.runner_up = max(self.similarity, others)
            self.subject, self.similarity = subject, similarity
        else:
            self.runner_up = max(self.runner_up, similarity)

    def nearest(self) -> Nearest:
        """As cosines: those of two float32 unit vectors can be 1.0000001; NaN stays NaN."""
        return self.subject, _cosine(self.similarity), _cosine(self.runner_up)


def _cosine(similarity: float) -> float:
    return similarity if math.isnan(similarity) else min(max(similarity, -1.0), 1.0)
