"""A street that nobody is in, drawn from a seed: sky, houses, pavement, lamps and trees.

It is there to be looked past: edges, texture and clutter such as a detector meets outdoors, and
nothing that was ever a face.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import numpy.typing as npt

from appliance.camera.motion import HORIZON
from appliance.types import Image

_VANISHING_X = 0.5
_ROOF = -0.55
"""Height of the nearest roof as a fraction of the frame, above its upper border."""

Colour = tuple[int, int, int]
Corner = tuple[float, float]


def street(size: tuple[int, int], seed: int) -> Image:
    """The background.

    Args:
        size: (width, height) in pixels.
        seed: the same seed and size give the same street.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    width, height = size
    rng = np.random.default_rng(seed)
    canvas = np.zeros((height, width, 3), np.uint8)
    _sky_and_pavement(canvas)
    _far_end(canvas, rng)
    for side in (-1, 1):
        _houses(canvas, side, rng)
    for side, depth in ((-1, 5.5), (1, 4.2), (-1, 3.0), (1, 2.2)):
        _tree_or_lamp(canvas, side, depth, rng)
    canvas = cv2.GaussianBlur(canvas, (0, 0), max(0.6, width / 1100)).astype(np.uint8, copy=False)
    grain = rng.standard_normal((height, width, 1), np.float32) * 3 + canvas
    return np.clip(grain, 0, 255, out=grain).astype(np.uint8)


def _sky_and_pavement(canvas: Image) -> None:
    height = canvas.shape[0]
    horizon = round(HORIZON * height)
    down = np.linspace(0, 1, horizon)[:, None, None]
    canvas[:horizon] = (1 - down) * (150, 178, 205) + down * (222, 226, 224)
    near = np.linspace(0, 1, height - horizon)[:, None, None]
    canvas[horizon:] = (1 - near) * (168, 164, 156) + near * (118, 114, 108)
    for depth in np.geomspace(1.05, 14, 16):  # rows of slabs
        _line(canvas, _ground(-3, depth), _ground(3, depth), (104, 100, 95))
    for x in np.arange(-3, 3.1, 0.5):
        _line(canvas, _ground(x, 1.0), _ground(x, 14), (104, 100, 95))


def _far_end(canvas: Image, rng: np.random.Generator) -> None:
    """Houses across the end of the street, and the shade at their foot."""
    left = 0.38
    while left < 0.62:  # noqa: PLR2004 - fraction of the width
        right = left + rng.uniform(0.03, 0.06)
        top = HORIZON - rng.uniform(0.10, 0.19)
        tone = int(rng.integers(120, 175))
        _fill(canvas, [(left, top), (right, top), (right, HORIZON), (left, HORIZON)], _brick(tone))
        for x in np.arange(left + 0.006, right - 0.008, 0.011):
            for y in np.arange(top + 0.015, HORIZON - 0.03, 0.028):
                _fill(canvas, _rectangle(x, y, 0.005, 0.014), (88, 98, 108))
        left = right


def _houses(canvas: Image, side: int, rng: np.random.Generator) -> None:
    """One side of the street, house by house from the far end to beside the camera."""
    depths = np.geomspace(9, 0.8, 7)
    for far, near in itertools.pairwise(depths):
        tone, roof = int(rng.integers(105, 185)), _ROOF * rng.uniform(0.8, 1.15)
        wall = [_wall(side, d, h) for d, h in ((far, roof), (near, roof), (near, 1), (far, 1))]
        _fill(canvas, wall, _brick(tone))
        _floors(canvas, side, (float(far), float(near)), roof, rng)
        _fill(canvas, _wall_strip(side, far, near, roof - 0.05, roof), _brick(tone - 35))


def _floors(
    canvas: Image, side: int, depths: tuple[float, float], roof: float, rng: np.random.Generator
) -> None:
    """Windows above, a shop window with its awning below."""
    far, near = depths
    ends = 1 / np.linspace(1 / far, 1 / near, 5)
    awning = tuple(int(c) for c in rng.integers(60, 150, 3))
    for floor in np.arange(roof + 0.12, 0.15, 0.30):
        for a, b in itertools.pairwise(ends):
            d1, d2 = a + (b - a) * 0.28, a + (b - a) * 0.72
            pane = int(rng.integers(70, 130))
            _fill(canvas, _wall_strip(side, d1, d2, floor - 0.01, floor + 0.19), (205, 202, 196))
            _fill(
                canvas, _wall_strip(side, d1, d2, floor, floor + 0.18), (pane - 15, pane, pane + 9)
            )
    d1, d2 = ends[0] + (ends[-1] - ends[0]) * 0.1, ends[0] + (ends[-1] - ends[0]) * 0.9
    _fill(canvas, _wall_strip(side, d1, d2, 0.42, 0.86), (62, 66, 70))
    _fill(canvas, _wall_strip(side, d1, d2, 0.34, 0.44), (awning[0], awning[1], awning[2]))


def _tree_or_lamp(canvas: Image, side: int, depth: float, rng: np.random.Generator) -> None:
    x, foot = _ground(side * 1.25, depth)
    tall, thick = 1.05 / depth, 0.018 / depth
    _fill(canvas, _rectangle(x - thick / 2, foot - tall, thick, tall), (70, 66, 62))
    height, width = canvas.shape[:2]
    if rng.random() < 0.5:  # noqa: PLR2004 - heads or tails
        _fill(
            canvas,
            _rectangle(x - 0.03 / depth, foot - tall, 0.06 / depth, 0.05 / depth),
            (96, 96, 92),
        )
        return
    for _ in range(220):
        off = rng.normal(0, (0.055 / depth, 0.09 / depth))
        centre = (round((x + off[0]) * width), round((foot - tall + off[1]) * height))
        green = int(rng.integers(70, 125))
        radius = max(2, round(0.016 / depth * width))
        cv2.circle(canvas, centre, radius, (green - 25, green, green - 40), -1, cv2.LINE_AA)


def _ground(x: float, depth: float) -> Corner:
    """A point of the pavement: x in half street widths, depth 1 at the lower border."""
    return _VANISHING_X + 0.5 * x / depth, HORIZON + (1 - HORIZON) / depth


def _wall(side: int, depth: float, height: float) -> Corner:
    """A point of a wall: height 1 is its foot, 0 the upper border of the frame at depth 1."""
    return _VANISHING_X + side * 0.62 / depth, HORIZON + (height - HORIZON) / depth


def _wall_strip(side: int, far: float, near: float, top: float, bottom: float) -> list[Corner]:
    return [_wall(side, d, h) for d, h in ((far, top), (near, top), (near, bottom), (far, bottom))]


def _rectangle(x: float, y: float, w: float, h: float) -> list[Corner]:
    return [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]


def _brick(tone: int) -> Colour:
    return tone + 8, tone - 4, max(0, tone - 18)


def _pixels(canvas: Image, corners: list[Corner]) -> npt.NDArray[np.int32]:
    height, width = canvas.shape[:2]
    return np.round(np.array(corners) * (width, height)).astype(np.int32)


def _fill(canvas: Image, corners: list[Corner], colour: Colour) -> None:
    cv2.fillPoly(canvas, [_pixels(canvas, corners)], colour, cv2.LINE_AA)


def _line(canvas: Image, a: Corner, b: Corner, colour: Colour) -> None:
    cv2.polylines(canvas, [_pixels(canvas, [a, b])], False, colour, 1, cv2.LINE_AA)
