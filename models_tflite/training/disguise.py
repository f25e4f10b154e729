"""Crude things in front of a face: only what shows beside the filled area matters.

The evaluation draws its own (appliance/evaluation/occluders.py), of other shapes: nothing that a
network is judged on was seen in its training. Shapes are polygons in the face template, brought
into any picture by the similarity that its landmarks give.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from appliance.types import Image
from appliance.vision.occlusion import Part

Similarity = npt.NDArray[np.float64]
"""(2, 3): from the template of 112 x 112 to a picture."""

Drawn = Callable[[Image], None]
"""Paints something onto a picture."""

_Points = npt.NDArray[np.float64]
_SUBPIXEL = 16


def draw(image: Image, to_image: Similarity, part: Part, rng: np.random.Generator) -> None:
    """Hide a part of the face, in place.

    Args:
        image: (h, w, 3) uint8.
        to_image: see Similarity.
        part: what to hide.
        rng: every choice is taken from it.
    """
    _DRAWN[part](image, to_image, rng)


def _lower(image: Image, to_image: Similarity, rng: np.random.Generator) -> None:
    """A mask or a cloth: a straight or bent upper edge, the rest below it."""
    middle, side = rng.uniform(54, 69), rng.uniform(58, 78)
    left, right = rng.uniform(4, 22), rng.uniform(90, 108)
    bottom = rng.uniform(108, 128)
    outline = np.array(
        [[left, side], [rng.uniform(38, 50), middle], [rng.uniform(62, 74), middle],
         [right, side], [right - 8, bottom - 12], [56, bottom], [left + 8, bottom - 12]]
    )  # fmt: skip
    _paint(image, to_image, outline, _colour(rng), rng.uniform(0.85, 1.0))


def _eyes(image: Image, to_image: Similarity, rng: np.random.Generator) -> None:
    """Two dark ellipses and a bar."""
    colour = _colour(rng) * rng.uniform(0.05, 0.45)
    solid = rng.uniform(0.7, 1.0)
    half = np.array([rng.uniform(12, 20), rng.uniform(8, 15)])
    drop = rng.uniform(-2, 5)
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for x in (37.5, 74.5):
        ring = np.stack([np.cos(turns), np.sin(turns)], axis=1) * half + [x, 52 + drop]
        _paint(image, to_image, ring, colour, solid)
    row, thick = rng.uniform(44, 53), rng.uniform(1.5, 4)
    wide = rng.uniform(0, 12)
    bar = np.array([[wide, row], [112 - wide, row], [112 - wide, row + thick], [wide, row + thick]])
    _paint(image, to_image, bar, colour, 1.0)


def _upper(image: Image, to_image: Similarity, rng: np.random.Generator) -> None:
    """A block over the forehead, and its shadow."""
    side, middle = rng.uniform(26, 42), rng.uniform(26, 42)
    left, right = rng.uniform(-6, 14), rng.uniform(98, 118)
    shadow = rng.uniform(2, 26)
    top = [[right, -40.0], [left, -40.0]]
    edge = np.array([[left, side], [34, middle], [78, middle], [right, side]])
    under = np.array([*(edge + np.array([0.0, shadow])), *top])
    _paint(image, to_image, under, np.zeros(3), rng.uniform(0.0, 0.55))
    _paint(image, to_image, np.array([*edge, *top]), _colour(rng), 1.0)


def _colour(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Grey, or any colour."""
    if rng.random() < 0.5:  # noqa: PLR2004 - half of them
        return np.full(3, rng.uniform(5, 250))
    return rng.uniform(0, 255, 3)


def _paint(
    image: Image, to_image: Similarity, outline: _Points, colour: _Points, solid: float
) -> None:
    """Blend a polygon of the template into a picture."""
    points = outline @ to_image[:, :2].T + to_image[:, 2]
    where = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(where, [np.rint(points * _SUBPIXEL).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    share = (where * (solid / 255.0))[..., None]
    image[:] = np.clip(image * (1 - share) + colour * share + 0.5, 0, 255).astype(np.uint8)


_DRAWN: dict[Part, Callable[[Image, Similarity, np.random.Generator], None]] = {
    "lower": _lower,
    "eyes": _eyes,
    "upper": _upper,
}
