"""Which part of a face is hidden, and how that part is taken out of the picture.

Enters: aligned crops of 112 x 112 (see align.TEMPLATE). Leaves: what is hidden, with a
probability; and the same crops with that part filled with one constant, so that the colour and the
cloth of what hides it cannot matter. Watchlist and probe are filled alike, and only what was
filled alike is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from appliance.errors import ModelError
from appliance.interfaces import Accelerator
from appliance.types import Image, ModelSpec, Tensor
from appliance.vision.align import TEMPLATE, TEMPLATE_SIDE
from appliance.vision.quantise import dequantise, quantise

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


@dataclass(frozen=True, slots=True)
class Told:
    """What the classifier makes of a face.

    Attributes:
        hidden: the likeliest.
        probability: of that.
        second: the next likely one.
    """

    hidden: Hidden
    probability: float
    second: Hidden


class Teller:
    """The classifier of the manifest on any accelerator. Used by one thread.

    The quantised crop is overwritten before `tell` returns.

    Args:
        accelerator: runs a model that takes a crop and gives one number for each of HIDDEN.

    Raises:
        ModelError: the model is no such one.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        _check(accelerator.spec)
        self._accelerator = accelerator
        self._tensor: Tensor = np.zeros(accelerator.spec.input.shape, accelerator.spec.input.dtype)

    def tell(self, crop: Image) -> Told:
        """Which part of an aligned face is hidden.

        Args:
            crop: (112, 112, 3) uint8.

        Raises:
            AcceleratorError: the device failed.
        """
        spec = self._accelerator.spec
        try:
            quantise(crop, spec, out=self._tensor)
            (quantised,) = self._accelerator.run(self._tensor)
        finally:
            self._tensor.fill(0)
        logits = dequantise(quantised[0], spec.outputs[0])  # (5,)
        likely = np.exp(logits - logits.max())
        likely /= likely.sum()
        first, second = np.argsort(-likely)[:2]
        return Told(HIDDEN[first], float(likely[first]), HIDDEN[second])

    def forget(self) -> None:
        """Overwrite what the model keeps of the last face between its layers.

        Raises:
            AcceleratorError: the device failed.
        """
        self._accelerator.run(self._tensor)  # zeros, see tell


def _check(spec: ModelSpec) -> None:
    if spec.role != "occlusion":
        raise ModelError(f"{spec.id}: is a {spec.role}, a classifier of hidden parts is needed")
    found = (spec.input.shape, *(output.shape for output in spec.outputs))
    wanted = ((1, TEMPLATE_SIDE, TEMPLATE_SIDE, 3), (1, len(HIDDEN)))
    if found != wanted:
        raise ModelError(f"{spec.id}: tensors of {found}, must be {wanted}")


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
