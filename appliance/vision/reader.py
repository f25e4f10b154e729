"""An aligned face to vectors, each with the column of the watchlist that it may be compared in.

Bare faces are read by the embedder for whole faces and go into the column "whole"; so do faces
under caps, which hide little that it needs. Of a face behind a mask, a scarf or sunglasses that
part is filled, and the embedder for hidden faces reads the rest; it was taught to say what the
other one says of the whole face, so the mean of what both say is a vector too, better than either,
and has a column of its own. One embedding per face; two while a part of it is or may be hidden,
never more.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from appliance.errors import ModelError
from appliance.interfaces import Embedder
from appliance.types import Image, Vector
from appliance.vision.occlusion import Hidden, Part, Told, fill

WHOLE: Final = "whole"
"""The column of bare faces; the others have the names of the parts."""

COLUMNS: Final[tuple[Part, ...]] = ("lower", "eyes")
"""Of part-hidden faces. There is none for caps. Measured on people never trained on, int8, TPIR at
FPIR 1 % of one picture, filled, joined, and as it is: mask 0.55, 0.62, 0.20; sunglasses 0.45, 0.55,
0.46; cap, never joined, 0.71, -, 0.86."""

_WHOLE_SHARE: Final[dict[Part, float]] = {"lower": 0.4, "eyes": 0.55}
"""Of a probe's joined vector: what the embedder for whole faces says, though a part is hidden. A
template is the plain mean: nothing is hidden on its photograph."""

_READ_AS: Final[dict[Hidden, tuple[str, ...]]] = {
    "none": (WHOLE,),
    "upper": (WHOLE,),
    "lower": ("lower",),
    "eyes": ("eyes",),
    "too-much": (),
}

_CERTAIN_BARE: Final = 0.85
_CERTAIN_HIDDEN: Final = 0.9
"""Probabilities from which the classifier is not doubted. A bare face taken for a hidden one loses
most, so that takes more. Measured: it is certain of 78 in 100 bare faces and wrong of 1, certain
of 56 to 86 behind drawn things and wrong of 0 to 3."""


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


def open_part(crop: Image, part: Part, hidden: Embedder, whole: Embedder | None) -> Vector:
    """The template to find a bare face by when a part of it is hidden.

    Args:
        crop: (112, 112, 3) uint8, aligned; left as it is.
        part: what will be hidden.
        hidden: embedder for hidden faces.
        whole: embedder for whole ones; None if that part is hidden on the crop already.

    Returns:
        (dim,) float32, L2 norm 1.
    """
    # Its mirror image, too: an authority has the time.
    both = np.stack([crop, crop[:, ::-1]])
    fill(both, part)
    vector = _unit(hidden.embed(both[0]) + hidden.embed(both[1]))
    both.fill(0)
    return vector if whole is None else _unit(vector + whole.embed(crop))


def joined(whole: Vector, filled: Vector, part: Part) -> Vector:
    """The probe that is made of what the two embedders say of a face.

    Args:
        whole: (dim,), norm 1, of the face as it is.
        filled: (dim,), norm 1, by the embedder for hidden faces.
        part: what is hidden.

    Returns:
        (dim,) float32, L2 norm 1.
    """
    share = _WHOLE_SHARE[part]
    vector, rest = share * whole, (1 - share) * filled
    vector += rest
    rest.fill(0)
    vector /= np.linalg.norm(vector)
    return np.asarray(vector, np.float32)


def _unit(vector: Vector) -> Vector:
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

    Raises:
        ModelError: the two embedders' vectors cannot be joined.
    """

    def __init__(
        self, *, embedder: Embedder, hidden: Embedder | None = None, teller: Tells | None = None
    ) -> None:
        if hidden is not None and hidden.dim != embedder.dim:
            raise ModelError(
                f"the embedder for hidden faces gives {hidden.dim} numbers, the other one"
                f" {embedder.dim}: they must be as many"
            )
        self._embedder, self._hidden, self._teller = embedder, hidden, teller

    @property
    def dim(self) -> int:
        """Length of the vectors, of every column."""
        return self._embedder.dim

    def read(self, crop: Image, columns: Container[str]) -> Reading:
        """The vectors of one face.

        Args:
            crop: (112, 112, 3) uint8, aligned; left as it is.
            columns: what there is to compare with; nothing is made for others.

        Raises:
            AcceleratorError: a device failed.
        """
        hidden = self._hidden
        if self._teller is None or hidden is None:
            return Reading(None, {WHOLE: self._embedder.embed(crop)})
        told = self._teller.tell(crop)
        likely = [told.hidden] if certain(told) else [told.hidden, told.second]
        wanted = {column for each in likely for column in _READ_AS[each] if column in columns}
        # The likelier one, where both answers are parts with a column.
        part = next((each for each in likely if each in COLUMNS and each in wanted), None)
        vectors: dict[str, Vector] = {}
        if wanted:
            whole = self._embedder.embed(crop)
            if part in COLUMNS:
                filled = _filled(crop, part, hidden)
                vectors[part] = joined(whole, filled, part)
                filled.fill(0)
            if WHOLE in wanted:
                vectors[WHOLE] = whole
            else:
                whole.fill(0)
        return Reading(told.hidden, vectors)

    def forget(self) -> None:
        """Overwrite what the models keep of the last face between their layers."""
        for model in (self._embedder, self._hidden, self._teller):
            if model is not None:
                model.forget()


def _filled(crop: Image, part: Part, embedder: Embedder) -> Vector:
    """The vector of a copy with a part filled; the copy is overwritten."""
    copy = crop.copy()
    try:
        fill(copy, part)
        return embedder.embed(copy)
    finally:
        copy.fill(0)
