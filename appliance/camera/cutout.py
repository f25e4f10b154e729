"""A photographed person cut out of the photograph, drawn at any size into a frame.

Everything slow is done once: the cut-out is kept with its colours multiplied by its opacity, in
halving sizes, so that a frame needs one small warp per person.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from appliance.camera.cover import put_on
from appliance.camera.person import Opacity, person
from appliance.camera.script import Anatomy, Cover, Point
from appliance.types import Image

Sprite = npt.NDArray[np.uint8]
"""(h, w, 4) uint8: RGB times opacity, opacity."""


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
        rgb, alpha, anatomy = person(photo, anatomy, face_px=face_px)
        put_on(cover, rgb, alpha, anatomy)
        x1, y1, x2, y2 = anatomy.face
        self._face_px = x2 - x1
        self._centre = ((x1 + x2) / 2, (y1 + y2) / 2)
        self._levels = _levels(rgb, alpha)

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
