"""An aligned face to vectors, each with the column of the watchlist that it may be compared in.

Bare faces are read by the embedder for whole faces and go into the column "whole". Of a part-hidden
one the hidden part is filled, and the embedder for hidden faces reads the rest, for the column of
that part. One embedding per face; two while it is not certain what is hidden.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from appliance.interfaces import Embedder
from appliance.types import Image, Vector
from appliance.vision.occlusion import PARTS, Hidden, Part, Told, fill

WHOLE: Final = "whole"
"""The column of bare faces; the others have the names of the parts."""

_CERTAIN_BARE: Final = 0.75
_CERTAIN_HIDDEN: Final = 0.95
"""Probabilities from which the classifier is not doubted. A bare face taken for a hidden one loses
most, so that takes more. Measured: it is certain of 85 in 100 bare faces and wrong of 1, certain
of 41 to 75 behind drawn things and wrong of 0 to 4."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one face gave.

    Attributes:
        hidden: what is hidden, None if nobody looked.
        vectors: by column; empty if nothing of the face can be compared.
    """

    hidden: Hidden | None
    vectors: dict[str, Vector]


def certain(told: Told) -> bool:
    """Whether what the classifier says is not doubted."""
    least = _CERTAIN_BARE if told.hidden == "none" else _CERTAIN_HIDDEN
    return told.probability >= least


def open_part(crop: Image, part: Part, embedder: Embedder) -> Vector:
    """The template of what stays open of a bare face when a part of it is hidden.

    The mean of the face and its mirror image: an authority has the time.

    Args:
        crop: (112, 112, 3) uint8, aligned; left as it is.
        part: what will be hidden.
        embedder: for hidden faces.

    Returns:
        (dim,) float32, L2 norm 1.
    """
    both = np.stack([crop, crop[:, ::-1]])
    fill(both, part)
    vector = embedder.embed(both[0]) + embedder.embed(np.ascontiguousarray(both[1]))
    both.fill(0)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


class Tells(Protocol):
    """Says which part of a face is hidden: occlusion.Teller, or a simulated one."""

    def tell(self, crop: Image) -> Told:
        """Of an aligned face."""

    def forget(self) -> None:
        """Overwrite what is kept of the last face."""


class Reader:
    """Used by one thread.

    Args:
        embedder: for whole faces.
        hidden: for faces of which a part is filled; None reads every face as a whole one.
        teller: says which part that is; None like `hidden`.
    """

    def __init__(
        self, *, embedder: Embedder, hidden: Embedder | None = None, teller: Tells | None = None
    ) -> None:
        self._embedder, self._hidden, self._teller = embedder, hidden, teller

    def dim(self, column: str) -> int:
        """Length of a column's vectors."""
        hidden = self._hidden
        return self._embedder.dim if column == WHOLE or hidden is None else hidden.dim

    def read(self, crop: Image, columns: Container[str]) -> Reading:
        """The vectors of one face.

        Args:
            crop: (112, 112, 3) uint8, aligned; what it holds afterwards is anybody's guess.
            columns: what there is to compare with; nothing is made for others.

        Raises:
            AcceleratorError: a device failed.
        """
        hidden = self._hidden
        if self._teller is None or hidden is None:
            return Reading(None, {WHOLE: self._embedder.embed(crop)})
        told = self._teller.tell(crop)
        likely = [told.hidden] if certain(told) else [told.hidden, told.second]
        vectors: dict[str, Vector] = {}
        # The whole face first: filling is in place.
        if "none" in likely and WHOLE in columns:
            vectors[WHOLE] = self._embedder.embed(crop)
        for part in PARTS:
            if part in likely and part in columns:
                vectors[part] = self._filled(crop, part, hidden, last=part == likely[-1])
        return Reading(told.hidden, vectors)

    def forget(self) -> None:
        """Overwrite what the models keep of the last face between their layers."""
        for model in (self._embedder, self._hidden, self._teller):
            if model is not None:
                model.forget()

    def _filled(self, crop: Image, part: Part, embedder: Embedder, *, last: bool) -> Vector:
        """Two parts that might be hidden are two guesses: the second must not see the first."""
        guess = crop if last else crop.copy()
        try:
            fill(guess, part)
            return embedder.embed(guess)
        finally:
            guess.fill(0)
