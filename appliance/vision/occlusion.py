"""Which part of a face is hidden, and how that part is taken out of the picture.

Enters: aligned crops of 112 x 112 (see align.TEMPLATE). Leaves: the same crops with the hidden
part filled with one constant, so that the colour and the cloth of what hides it cannot matter.
Watchlist and probe are filled alike, and only what was filled alike is compared.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from appliance.types import Image
from appliance.vision.align import TEMPLATE, TEMPLATE_SIDE

Part = Literal["lower", "eyes", "upper"]
"""A mask or a scarf; sunglasses; a cap."""

PARTS: Final[tuple[Part, ...]] = ("lower", "eyes", "upper")

Hidden = Literal["none", "lower", "eyes", "upper", "too-much"]
"""What may be hidden of a face. Too much: what is left tells nobody from anybody."""

HIDDEN: Final[tuple[Hidden, ...]] = ("none", "lower", "eyes", "upper", "too-much")
"""In the order in which the classifier answers."""

FILLED_WITH: Final = 127
"""Quantised it is zero, or next to it: what a convolution sees where there is nothing."""

_LOWER_FROM_ROW = 62
"""Halfway from the eyes to the tip of the nose: masks and scarves begin about here."""

_UPPER_TO_ROW = 38
"""The brows are below, at about 42."""

_LENS_HALF = (20.5, 15.0)
"""Half the width and height of a large lens, pixels, with two pixels for landmarks that moved."""

_LENS_DROP = 2.0
"""A lens hangs so much below the eye's centre."""

_TEMPLE_ROWS = (43, 54)
"""Bridge and temples: across the whole width."""


def fill(crop: Image, part: Part) -> None:
    """Overwrite a part of an aligned face, in place.

    Args:
        crop: (112, 112, 3) uint8, or (n, 112, 112, 3).
        part: what is hidden.
    """
    crop[..., _AREAS[part], :] = FILLED_WITH


def area(part: Part) -> npt.NDArray[np.bool_]:
    """(112, 112) bool: what `fill` overwrites."""
    found: npt.NDArray[np.bool_] = _AREAS[part].copy()
    return found


def _eyes() -> npt.NDArray[np.bool_]:
    """Two lenses, rounded rectangles about the eyes, and what holds them.

    Less than a band across the face: what is between the lenses and the cheeks stays to be seen.
    """
    rows, columns = np.mgrid[:TEMPLATE_SIDE, :TEMPLATE_SIDE].astype(np.float32)
    hidden = (rows >= _TEMPLE_ROWS[0]) & (rows < _TEMPLE_ROWS[1])
    for x, y in TEMPLATE[:2]:
        across = np.abs(columns - x) / _LENS_HALF[0]
        down = np.abs(rows - y - _LENS_DROP) / _LENS_HALF[1]
        hidden |= across**3 + down**3 <= 1.0
    return np.asarray(hidden, bool)


def _rows(first: int, after: int) -> npt.NDArray[np.bool_]:
    hidden = np.zeros((TEMPLATE_SIDE, TEMPLATE_SIDE), bool)
    hidden[first:after] = True
    return hidden


_AREAS: Final[dict[Part, npt.NDArray[np.bool_]]] = {
    "lower": _rows(_LOWER_FROM_ROW, TEMPLATE_SIDE),
    "eyes": _eyes(),
    "upper": _rows(0, _UPPER_TO_ROW),
}
