"""A photographed person cut out of the photograph, drawn at any size into a frame.

Everything slow is done once: the cut-out is kept with its colours multiplied by its opacity, in
halving sizes, so that a frame needs one small warp per person.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from appliance.camera.cover import put_on
from appliance.camera.script import Anatomy, Cover, Point
from appliance.errors import CameraError
from appliance.types import Image

Opacity = npt.NDArray[np.uint8]
"""(h, w) uint8."""
Sprite = npt.NDArray[np.uint8]
"""(h, w, 4) uint8: RGB times opacity, opacity."""

_TALLEST_FACES = 10.0
"""From the chin to the ground, in widths of the face; 10 of 0.15 m."""
_MARGIN = 0.35
"""Around the outline, in widths of the face: room for what covers it."""


class Cutout:
    """One person in one photograph.

    Args:
        photo: path of the picture.
        anatomy: in the picture's pixels.
        cover: drawn on.
        face_px: width of the face that is kept; larger faces are drawn from this one.

    Raises:
        CameraError: the photograph is not there or cannot be decoded; names it.
    """

    def __init__(self, photo: Path, anatomy: Anatomy, *, cover: Cover, face_px: float) -> None:
        picture = cv2.imread(str(photo), cv2.IMREAD_COLOR) if photo.is_file() else None
        if picture is None:
            raise CameraError(f"{photo}: not a photograph that can be decoded")
        bgr = picture.astype(np.uint8, copy=False)
        rgb, anatomy = _cropped(
            cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8), anatomy, face_px
        )
        alpha = _matte(rgb.shape[:2], anatomy)
        rgb, alpha = _with_coat(rgb, alpha, anatomy)
        put_on(cover, rgb, alpha, anatomy)
        x1, y1, x2, y2 = anatomy.face
        self._face_px = x2 - x1
        self._centre = ((x1 + x2) / 2, (y1 + y2) / 2)
        self._levels = _levels(rgb, alpha)
        self.aspect = (y2 - y1) / (x2 - x1)

    def draw(
        self,
        frame: Image,
        centre: Point,
        *,
        face_px: float,
        angle: float,
        blur_px: float,
        light: float,
        presence: float,
    ) -> None:
        """Draw the person into a frame.

        Args:
            frame: (height, width, 3) uint8 RGB, drawn into.
            centre: of the face, pixels of the frame.
            face_px: width of the face in the frame.
            angle: degrees, clockwise.
            blur_px: length of the horizontal motion blur.
            light: brightness, 1 as photographed.
            presence: opacity of the whole person, 0 to 1.
        """
        scale = face_px / self._face_px
        level = min(max(0, math.floor(math.log2(1 / scale))), len(self._levels) - 1)
        sprite = self._levels[level]
        warp = self._warp(level, centre, scale, angle)
        window = _window(sprite.shape, warp, frame.shape, margin=blur_px)
        if window is None:
            return
        left, top, right, bottom = window
        warp[:, 2] -= (left, top)
        patch = cv2.warpAffine(sprite, warp, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
        if blur_px >= 1.5:  # noqa: PLR2004 - less cannot be seen
            patch = cv2.blur(patch, (round(blur_px), 1))
        onto = frame[top:bottom, left:right]
        _composite(patch.astype(np.uint8, copy=False), onto, light=light, presence=presence)

    def _warp(
        self, level: int, centre: Point, scale: float, angle: float
    ) -> npt.NDArray[np.float64]:
        """(2, 3): pixels of a level → pixels of the frame; the face's centre goes to `centre`."""
        shrunk = scale * 2**level
        turn = math.radians(angle)
        a, b = shrunk * math.cos(turn), shrunk * math.sin(turn)
        x, y = self._centre[0] / 2**level, self._centre[1] / 2**level
        return np.array(
            [[a, -b, centre[0] - a * x + b * y], [b, a, centre[1] - b * x - a * y]], np.float64
        )


def _cropped(rgb: Image, anatomy: Anatomy, face_px: float) -> tuple[Image, Anatomy]:
    """The person with a margin, at the size wanted, and the anatomy in its pixels."""
    outline = np.array(anatomy.outline)
    width = anatomy.face[2] - anatomy.face[0]
    margin = _MARGIN * width
    left, top = np.floor(outline.min(axis=0) - margin).astype(int)
    right, bottom = np.ceil(outline.max(axis=0) + np.array([margin, 0])).astype(int)
    h, w = rgb.shape[:2]
    pad = max(0, -left, -top, right - w, bottom - h)
    if anatomy.mend:
        hole = np.zeros((h, w), np.uint8)
        cv2.fillPoly(hole, [np.round(np.array(anatomy.mend)).astype(np.int32)], 255)
        rgb = cv2.inpaint(rgb, hole, 5, cv2.INPAINT_TELEA).astype(np.uint8, copy=False)
    padded = cv2.copyMakeBorder(rgb, pad, pad, pad, pad, cv2.BORDER_REFLECT)
    crop = padded[top + pad : bottom + pad, left + pad : right + pad]
    scale = min(1.0, face_px / width)
    size = round(crop.shape[1] * scale), round(crop.shape[0] * scale)
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)

    def moved(points: tuple[Point, ...]) -> tuple[Point, ...]:
        return tuple(((x - left) * scale, (y - top) * scale) for x, y in points)

    (x1, y1), (x2, y2) = moved((anatomy.face[:2], anatomy.face[2:]))
    return small, msgspec.structs.replace(
        anatomy,
        face=(x1, y1, x2, y2),
        landmarks=moved(anatomy.landmarks),
        outline=moved(anatomy.outline),
        mend=(),
    )


def _matte(shape: tuple[int, ...], anatomy: Anatomy) -> Opacity:
    """The outline with soft edges, pulled in by what the softness spreads: no halo."""
    matte = np.zeros(shape, np.uint8)
    cv2.fillPoly(matte, [np.round(np.array(anatomy.outline)).astype(np.int32)], 255)
    soft = max(0.8, 0.008 * (anatomy.face[2] - anatomy.face[0]))
    blurred = cv2.GaussianBlur(matte, (0, 0), soft).astype(np.float32)
    return np.clip(2 * blurred - 255, 0, 255).astype(np.uint8)


def _with_coat(rgb: Image, alpha: Opacity, anatomy: Anatomy) -> tuple[Image, Opacity]:
    """Continue the clothes down to the ground below the photograph's border."""
    face_px = anatomy.face[2] - anatomy.face[0]
    edge = round(max(y for _, y in anatomy.outline)) - max(4, round(0.06 * face_px))
    end = round(anatomy.face[3] + _TALLEST_FACES * face_px)
    inside = np.flatnonzero(alpha[edge] > 127)  # noqa: PLR2004 - half
    if end <= alpha.shape[0] or inside.size == 0:
        return rgb, alpha
    middle, half = (inside[0] + inside[-1]) / 2, (inside[-1] - inside[0]) / 2
    hem = edge + 2.2 * face_px
    sides = ((edge, half), (hem, 0.92 * half), (hem, 0.72 * half), (end, 0.5 * half))
    corners = [(middle + w, y) for y, w in sides] + [(middle - w, y) for y, w in sides[::-1]]
    body = np.zeros((end, alpha.shape[1]), np.uint8)
    cv2.fillPoly(body, [np.round(np.array(corners)).astype(np.int32)], 255, cv2.LINE_AA)
    body[:edge] = alpha[:edge]
    clothes = np.concatenate([rgb[:edge], _cloth(rgb, edge, inside, end)])
    seam = round(0.15 * face_px)
    around = slice(edge - seam, edge + seam)
    weight = (1 - np.abs(np.linspace(-1, 1, 2 * seam, dtype=np.float32)))[:, None, None]
    soft = cv2.blur(clothes, (1, 2 * seam))[around]
    clothes[around] = (clothes[around] * (1 - weight) + soft * weight).astype(np.uint8)
    return clothes, body


def _cloth(rgb: Image, edge: int, inside: npt.NDArray[np.intp], end: int) -> Image:
    """The commonest colour of the last rows, rounded off, with the gaps beside two arms."""
    colour = np.median(rgb[edge - 3 : edge + 1, inside].reshape(-1, 3), axis=0)
    middle, half = (inside[0] + inside[-1]) / 2, (inside[-1] - inside[0]) / 2
    across = np.abs(np.arange(rgb.shape[1], dtype=np.float32) - middle) / half
    arms = np.exp(-(((across - 0.68) / 0.05) ** 2))
    shade = np.clip(1 - 0.35 * across**2 - 0.35 * arms, 0, 1)[None, :, None]
    down = np.linspace(1, 0.75, end - edge, dtype=np.float32)[:, None, None]
    return np.asarray(colour * shade * down, np.uint8)


def _levels(rgb: Image, alpha: Opacity) -> list[Sprite]:
    """Sprites of 1, 1/2, 1/4 ... of the size, down to a face that is too small to find."""
    weight = alpha[:, :, None].astype(np.uint16)
    colours = (rgb.astype(np.uint16) * weight // 255).astype(np.uint8)
    sprite: Sprite = np.concatenate([colours, alpha[:, :, None]], axis=2)
    levels = [sprite]
    for _ in range(4):
        h, w = levels[-1].shape[:2]
        half = cv2.resize(
            levels[-1], (max(1, w // 2), max(1, h // 2)), interpolation=cv2.INTER_AREA
        )
        levels.append(half.astype(np.uint8, copy=False))
    return levels


def _window(
    sprite: tuple[int, ...],
    warp: npt.NDArray[np.float64],
    frame: tuple[int, ...],
    *,
    margin: float,
) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what a sprite touches in a frame, None if nothing."""
    h, w = sprite[:2]
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]]) @ warp.T  # (4, 2)
    low, high = corners.min(axis=0), corners.max(axis=0)
    left, top = max(0, math.floor(low[0] - margin)), max(0, math.floor(low[1]))
    right = min(frame[1], math.ceil(high[0] + margin))
    bottom = min(frame[0], math.ceil(high[1]))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _composite(patch: Sprite, onto: Image, *, light: float, presence: float) -> None:
    """`patch` over `onto`, in place: its colours are multiplied by the opacity already."""
    opacity = cv2.extractChannel(patch, 3)
    if presence < 1:
        opacity = cv2.convertScaleAbs(opacity, alpha=presence)
    colours = cv2.cvtColor(patch, cv2.COLOR_RGBA2RGB)
    if light * presence != 1:
        colours = cv2.convertScaleAbs(colours, alpha=light * presence)
    through = cv2.cvtColor(cv2.bitwise_not(opacity), cv2.COLOR_GRAY2RGB)
    cv2.multiply(onto, through, dst=onto, scale=1 / 255)
    cv2.add(onto, colours, dst=onto)
