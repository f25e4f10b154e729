"""Masks, scarves, sunglasses, caps and hands, drawn onto faces that are bare.

Enters: a picture and a face's landmarks. Leaves: a copy on which something hides part of that
face, lit as the picture is. Shapes are curves in the face template of 112 x 112, brought into the
picture by the similarity that the landmarks give. Nothing here finds a face: whoever evaluates
looks for it again on the hidden picture. Drawn things are not worn ones: cloth that sags, glass
that mirrors the street and straps that pull at ears are not in here.

No training uses these shapes (models_tflite/training/disguise.py has cruder ones of its own).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from appliance.types import Image, Points
from appliance.vision.align import TEMPLATE, similarity

Kind = Literal["mask", "scarf", "sunglasses", "cap", "hand"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_Curve = npt.NDArray[np.float64]
_Colour = npt.NDArray[np.float64]
_Plane = npt.NDArray[np.float32]

_SUBPIXEL_BITS = 4
_SKIN_ROWS = slice(56, 90)
_WHITE_LUMA = 150.0
"""Mean luma of a face in the light in which a colour is shown as it is named."""

_GRAIN = 2.5
"""Standard deviation of the noise that a camera leaves on cloth, grey levels."""

_FABRICS: Final = ("plain", "stripes", "check", "dots")


def hide(image: Image, landmarks: Points, kind: Kind, seed: int) -> Image:
    """A copy of the picture with the face part-hidden.

    Args:
        image: (h, w, 3) uint8.
        landmarks: (5, 2) float32 pixels of the bare face.
        kind: by what.
        seed: the same one gives the same cut, colour and place.

    Returns:
        (h, w, 3) uint8.
    """
    rng = np.random.default_rng((seed, KINDS.index(kind)))
    easel = _Easel(image, landmarks, rng)
    _DRAWN[kind](easel, rng)
    return easel.image


class _Easel:
    """A picture that is painted on in template coordinates, in its own light."""

    def __init__(self, image: Image, landmarks: Points, rng: np.random.Generator) -> None:
        self.image: Image = image.copy()
        self._rng = rng
        self._to_image = cv2.invertAffineTransform(similarity(landmarks, TEMPLATE))
        self._px = float(np.hypot(*self._to_image[:, 0]))
        face = cv2.warpAffine(image, similarity(landmarks, TEMPLATE), (112, 112))
        self.skin: _Colour = np.median(face[_SKIN_ROWS, 36:76].reshape(-1, 3), axis=0)
        luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        smooth = cv2.GaussianBlur(luma, (0, 0), max(22.0 * self._px, 1.0))
        # Bright sides of the face are bright sides of what it wears.
        self._light: _Plane = np.clip(smooth / max(float(self.skin.mean()), 30.0), 0.6, 1.4)
        self._light *= np.clip(float(self.skin.mean()) / _WHITE_LUMA, 0.35, 1.3)

    def paint(
        self,
        outline: _Curve,
        colour: _Colour,
        *,
        solid: float = 1.0,
        fabric: str = "plain",
        folds: float = 0.0,
        lit: bool = True,
    ) -> None:
        """Fill a closed curve.

        Args:
            outline: (n, 2) template pixels.
            colour: RGB in white light.
            solid: 1 hides what is behind it.
            fabric: one of _FABRICS.
            folds: depth of the shading that cloth has, 0 to 1.
            lit: by the picture's light; otherwise the colour is as given.
        """
        points = outline @ self._to_image[:, :2].T + self._to_image[:, 2]
        window = self._around(points)
        part = self.image[window]
        if not part.size:
            return
        corner = np.array([window[1].start, window[0].start])
        where = np.zeros(part.shape[:2], np.uint8)
        fixed = np.rint((points - corner) * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(where, [fixed], 255, cv2.LINE_AA, shift=_SUBPIXEL_BITS)
        blurred = cv2.GaussianBlur(where, (0, 0), 0.5 + 0.3 * self._px)
        share = (blurred * np.float32(solid / 255.0))[..., None]
        shade: _Plane = np.ones(part.shape[:2], np.float32)
        if fabric != "plain":
            shade *= self._woven(fabric, window)
        if folds:
            shade *= 1 - np.float32(folds) * self._folded(window)
        if lit:
            shade *= self._light[window]
        cloth = shade[..., None] * colour.astype(np.float32)
        cloth += self._rng.normal(0.0, _GRAIN, (*part.shape[:2], 1)).astype(np.float32)
        mixed = part + (cloth - part) * share
        self.image[window] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)

    def _around(self, points: _Curve) -> tuple[slice, slice]:
        """Rows and columns of the picture that a curve and its soft edge lie in."""
        reach = 3 + 2 * self._px
        low = np.floor(points.min(axis=0) - reach).astype(int)
        high = np.ceil(points.max(axis=0) + reach).astype(int)
        size = np.array(self.image.shape[1::-1])
        (x1, y1), (x2, y2) = np.clip(low, 0, size), np.clip(high, 0, size)
        return slice(int(y1), int(y2)), slice(int(x1), int(x2))

    def line(self, curve: _Curve, width: float, colour: _Colour, *, solid: float = 1.0) -> None:
        """A stroke along an open curve, `width` template pixels thick."""
        steps = np.gradient(curve, axis=0)
        normal = np.stack([-steps[:, 1], steps[:, 0]], axis=1)
        normal *= width / 2 / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
        self.paint(np.concatenate([curve + normal, (curve - normal)[::-1]]), colour, solid=solid)

    def _axes(self, window: tuple[slice, slice]) -> tuple[_Plane, _Plane]:
        """Template x and y of every pixel of a part of the picture."""
        inverse = cv2.invertAffineTransform(self._to_image).astype(np.float32)
        rows, columns = np.mgrid[window].astype(np.float32)
        x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
        y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
        return x, y

    def _woven(self, fabric: str, window: tuple[slice, slice]) -> _Plane:
        x, y = self._axes(window)
        period = self._rng.uniform(7, 14)
        wave_x, wave_y = np.sin(2 * np.pi * x / period), np.sin(2 * np.pi * y / period)
        if fabric == "stripes":
            pattern = (wave_y > 0).astype(np.float32)
        elif fabric == "check":
            pattern = (wave_y > 0.2).astype(np.float32) + (wave_x > 0.2)  # noqa: PLR2004
        else:
            pattern = (wave_x * wave_y > 0.55).astype(np.float32)  # noqa: PLR2004 - round dots
        return np.asarray(1.0 - 0.35 * pattern, np.float32)

    def _folded(self, window: tuple[slice, slice]) -> _Plane:
        x, y = self._axes(window)
        period, lean = self._rng.uniform(9, 20), self._rng.uniform(-0.3, 0.3)
        return np.asarray(0.5 + 0.5 * np.sin(2 * np.pi * (y + lean * x) / period), np.float32)


def _mask(easel: _Easel, rng: np.random.Generator) -> None:
    """Surgical, cup or cloth; loops to the ears."""
    cut = _MASKS[rng.integers(len(_MASKS))]
    colour = _pick(rng, _MASK_COLOURS)
    top, shift = rng.uniform(-3.0, 4.0), rng.uniform(-1.5, 1.5)
    upper = _smooth(_moved(cut.upper, shift, top))
    lower = _smooth(_moved(cut.lower, shift, rng.uniform(-3, 3)))
    outline = np.concatenate([upper, lower[::-1]])
    for ends, ear in ((0, -4.0), (-1, 116.0)):
        for edge, height in ((upper, 50.0), (lower, 74.0)):
            loop = np.array([edge[ends], [(edge[ends][0] + ear) / 2, height], [ear, height - 2]])
            easel.line(_smooth(loop), 1.6, colour * 0.9)
    fabric = _FABRICS[rng.integers(len(_FABRICS))] if cut.cloth else "plain"
    easel.paint(outline, colour, fabric=fabric, folds=cut.folds)
    if cut.seam:
        middle = np.array([[56 + shift, upper[:, 1].min()], [56 + shift, lower[:, 1].max()]])
        easel.line(_smooth(middle), 0.9, colour * 0.7)


@dataclass(frozen=True, slots=True)
class _Cut:
    """Edges of a mask from the left cheek to the right one, in the template."""

    upper: list[list[float]]
    lower: list[list[float]]
    folds: float
    cloth: bool = False
    seam: bool = False


_MASKS: Final = (
    _Cut(
        upper=[[12, 66], [34, 63], [48, 58], [56, 56.5], [64, 58], [78, 63], [100, 66]],
        lower=[[16, 100], [34, 113], [56, 119], [78, 113], [96, 100]],
        folds=0.18,
    ),
    _Cut(
        upper=[[10, 74], [30, 68], [46, 58], [56, 54.5], [66, 58], [82, 68], [102, 74]],
        lower=[[14, 92], [36, 112], [56, 122], [76, 112], [98, 92]],
        folds=0.05,
        seam=True,
    ),
    _Cut(
        upper=[[14, 69], [30, 66], [44, 62], [56, 60], [68, 62], [82, 66], [98, 69]],
        lower=[[18, 96], [38, 114], [56, 120], [74, 114], [94, 96]],
        folds=0.1,
        cloth=True,
    ),
)
_MASK_COLOURS: Final = (
    (150, 190, 215), (235, 236, 238), (28, 28, 30), (226, 170, 182), (80, 120, 90), (60, 70, 120),
)  # fmt: skip


def _scarf(easel: _Easel, rng: np.random.Generator) -> None:
    """Wound about the lower face, wider than it, up to the nose or the upper lip."""
    middle, side = rng.uniform(62, 76), rng.uniform(62, 84)
    lean = rng.uniform(-6, 6)
    upper = _smooth(
        np.array(
            [[-18, side - lean], [10, side - lean / 2], [38, middle + 1], [56, middle],
             [74, middle + 1], [102, side + lean / 2], [130, side + lean]]
        )
    )  # fmt: skip
    below = np.array([[128.0, 158.0], [56.0, 168.0], [-16.0, 158.0]])
    fabric = _FABRICS[rng.integers(len(_FABRICS))]
    colour = rng.uniform(20, 220, 3)
    easel.paint(np.concatenate([upper, below]), colour, fabric=fabric, folds=rng.uniform(0.2, 0.5))


def _sunglasses(easel: _Easel, rng: np.random.Generator) -> None:
    """Four frames: square, drop, round, and one visor."""
    frame = rng.integers(4)
    tint = _pick(rng, ((14, 14, 16), (40, 30, 22), (24, 36, 30), (30, 34, 48)))
    rim = _pick(rng, ((10, 10, 10), (70, 45, 25), (150, 130, 70), (120, 120, 125)))
    drop, solid = rng.uniform(0.0, 4.0), rng.uniform(0.88, 1.0)
    size = rng.uniform(0.88, 1.1)
    if frame == 3:  # noqa: PLR2004 - the visor
        shape = [[17, 45], [56, 43], [95, 45], [93, 62], [74, 67], [56, 58], [38, 67], [19, 62]]
        easel.paint(_closed(_moved(shape, 0.0, drop)), tint, solid=solid)
    else:
        bridge = np.array([[48, 50 + drop], [56, 48 + drop], [64, 50 + drop]])
        easel.line(_smooth(bridge), 2.2, rim)
        for x, mirror in ((37.0, 1.0), (75.0, -1.0)):
            lens = _moved(np.array(_LENSES[frame]) * [mirror * size, size], x, 52.0 + drop)
            outline = _closed(lens)
            easel.paint(outline + (outline - outline.mean(axis=0)) * 0.08, rim)
            easel.paint(outline, tint, solid=solid)
            x0, y0 = lens.mean(axis=0)
            spot = _closed(_moved(_GLINT, x0 - 6 * mirror, y0 - 5))
            easel.paint(spot, np.full(3, 235.0), solid=rng.uniform(0.0, 0.5))
    for inner, outer in ((20.0, -6.0), (92.0, 118.0)):
        arm = np.array([[inner, 47 + drop], [outer, 46.0 + rng.uniform(-2, 2)]])
        easel.line(_smooth(arm), 2.4, rim)


_LENSES: Final = (
    [[-17, -9], [0, -11], [15, -9], [14, 5], [6, 11], [-9, 11], [-16, 4]],
    [[-16, -8], [0, -10], [14, -8], [14, 2], [4, 15], [-10, 14], [-17, 4]],
    [[-13, 0], [-9, -9], [0, -13], [9, -9], [13, 0], [9, 9], [0, 13], [-9, 9]],
)
"""From a lens's centre; x grows towards the nose."""

_GLINT: Final = [[-3.0, -2.0], [3.0, -3.0], [2.0, 1.0], [-3.0, 2.0]]


def _cap(easel: _Easel, rng: np.random.Generator) -> None:
    """A dome, a brim low over the brows, and the brim's shadow."""
    brow, lean = rng.uniform(27, 38), rng.uniform(-4, 4)
    colour, brim = rng.uniform(15, 210, 3), rng.uniform(8, 16)
    for depth in (20.0, 13.0, 7.0):
        shade = [[4, brow - 6], [56, brow - brim], [108, brow - 6], [104, brow + depth - 4],
                 [56, brow + depth], [8, brow + depth - 4]]  # fmt: skip
        easel.paint(_closed(np.array(shade)), np.full(3, 8.0), solid=rng.uniform(0.08, 0.22))
    dome = [[-4, brow - 4], [-8, brow - 34], [16, brow - 66], [56, brow - 78], [96, brow - 66],
            [120, brow - 34], [116, brow - 4], [56, brow - 12]]  # fmt: skip
    easel.paint(_closed(_moved(dome, lean, 0.0)), colour, folds=0.12)
    edge = [[-2, brow - 5], [20, brow - 1], [56, brow + 1], [92, brow - 1], [114, brow - 5],
            [90, brow - brim], [56, brow - brim - 4], [22, brow - brim]]  # fmt: skip
    easel.paint(_closed(_moved(edge, lean, 0.0)), colour * rng.uniform(0.5, 0.9))


def _hand(easel: _Easel, rng: np.random.Generator) -> None:
    """Four fingers and a palm over the mouth and one cheek, from either side."""
    side = 1.0 if rng.random() < 0.5 else -1.0  # noqa: PLR2004 - either
    colour = easel.skin * _WHITE_LUMA / max(float(easel.skin.mean()), 30.0)
    top, tilt = rng.uniform(62, 74), rng.uniform(-0.25, 0.1)
    palm = _moved([[24, -4], [66, -6], [70, 56], [26, 60]], 0.0, top)
    easel.paint(_closed(_sided(palm, side)), colour * 0.92, folds=0.1)
    for finger in range(4):
        root, reach = top + 4 + 11.5 * finger, -rng.uniform(28, 40) + 4 * abs(finger - 1)
        bent = np.array([[34, root], [0, root + tilt * 34], [reach, root + tilt * (34 - reach)]])
        curve = _smooth(_sided(bent, side))
        easel.line(curve, 12.5, colour * 0.72)
        easel.line(curve, 11.0, colour * rng.uniform(0.94, 1.04))


def _sided(points: _Curve, side: float) -> _Curve:
    """From the middle of the face to the right, or mirrored."""
    return _moved(points * [side, 1.0], 56.0, 0.0)


def _moved(points: npt.ArrayLike, x: float, y: float) -> _Curve:
    moved: _Curve = np.asarray(points, np.float64) + np.array([x, y])
    return moved


def _pick(rng: np.random.Generator, colours: tuple[tuple[int, ...], ...]) -> _Colour:
    """One of them, a little off."""
    return np.clip(np.array(colours[rng.integers(len(colours))]) + rng.normal(0, 8, 3), 0, 255)


def _smooth(points: _Curve, closed: bool = False) -> _Curve:  # noqa: FBT001, FBT002 - see _closed
    """A Catmull-Rom curve through the points."""
    around = np.concatenate(
        [points[-1:], points, points[:2]] if closed else [points[:1], points, points[-1:]]
    )
    t = np.linspace(0.0, 1.0, 8, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(around, around[1:], around[2:], around[3:], strict=False):
        bend = (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
        pieces.append(b + 0.5 * ((c - a) * t + bend))
    if not closed:
        pieces.append(points[-1:])
    return np.concatenate(pieces).astype(np.float64)


def _closed(points: _Curve) -> _Curve:
    return _smooth(points.astype(np.float64), closed=True)


_DRAWN: Final[dict[Kind, Callable[[_Easel, np.random.Generator], None]]] = {
    "mask": _mask,
    "scarf": _scarf,
    "sunglasses": _sunglasses,
    "cap": _cap,
    "hand": _hand,
}
