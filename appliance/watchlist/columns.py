"""The templates of one column in secret memory, and the exhaustive search through them.

A search reads every template once, in the order of memory, and nothing else of that size, so it
takes about as long as reading does. Of the ways that numpy and OpenBLAS offer, row by row
(np.vecdot) came nearest: on one core of an EPYC, 1,000,000 templates of 192 numbers took 28 ms
and reading them 24 ms; matrix times vector took 47 ms, and 33 ms with blocks transposed.

Matrix times matrix would serve many probes faster still. It is not used because BLAS copies both
into buffers of its own, and templates would lie open outside of secret memory.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from appliance.types import Vectors
from appliance.watchlist.memory import Allocate

BLOCK_BYTES = 2**20
"""Searched at a time: for several probes a block is read from memory once, then from cache."""
_FLOAT32_BYTES = 4
_row_by_row: Callable[..., object] = getattr(np, "vecdot", np.dot)
"""numpy 1 has no vecdot; its dot takes twice as long."""

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
        rows: (templates, dim) float32, to be filled with unit vectors; none once wiped.
    """

    def __init__(self, *, templates: int, dim: int, allocate: Allocate) -> None:
        self._memory = allocate(templates * dim * _FLOAT32_BYTES)
        self.rows: Vectors = np.frombuffer(self._memory.view, np.float32).reshape(templates, dim)
        block = max(1, BLOCK_BYTES // (dim * _FLOAT32_BYTES))
        self._blocks = [(i, self.rows[i : i + block]) for i in range(0, templates, block)]
        self._scores = np.zeros(block, np.float32)
        self._starts: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self._lock = threading.Lock()

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
            if not self._blocks:
                return None
            found = [_Best() for _ in probes]
            for first, block in self._blocks:
                scores = self._scores[: len(block)]
                for probe, best in zip(probes, found, strict=True):
                    _row_by_row(block, probe, out=scores)
                    # Written so that a probe that is no number (NaN) is looked at.
                    if not scores.max() <= best.runner_up:
                        self._merge(best, scores, first)
            self._scores.fill(0)
            return [best.nearest() for best in found]

    def wipe(self) -> None:
        """Overwrite the templates. Later searches find None."""
        with self._lock:
            self._blocks = []
            self._memory.wipe()
            self.rows = np.zeros((0, self.rows.shape[1]), np.float32)

    def _merge(self, best: _Best, scores: npt.NDArray[np.float32], first: int) -> None:
        """Weigh a block's scores against what the blocks before it had."""
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
