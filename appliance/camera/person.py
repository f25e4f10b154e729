"""A photograph becomes a person without a background: colours, opacity, and where the face is.

What the photograph does not show is made up: clothes below its border, and what a microphone hid.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from appliance.camera.script import Anatomy, Point
from appliance.errors import CameraError
from appliance.types import Image

Opacity = npt.NDArray[np.uint8]
"""(h, w) uint8."""

_TALLEST_FACES = 10.0
"""From the chin to the ground, in widths of the face; 10 of 0.15 m."""
_MARGIN = 0.35
"""Around the outline, in widths of the face: room for what covers it."""


def person(photo: Path, anatomy: Anatomy, *, face_px: float) -> tuple[Image, Opacity, Anatomy]:
    """Cut the person out of a photograph.

    Args:
        photo: path of the picture.
        anatomy: in the picture's pixels.
        face_px: width of the face at most; a larger picture is made smaller.

    Returns:
        (h, w, 3) uint8 RGB, (h, w) uint8 opacity, and the anatomy in their pixels.

    Raises:
        CameraError: the photograph is not there or cannot be decoded; names it.
    """
    picture = cv2.imread(str(photo), cv2.IMREAD_COLOR) if photo.is_file() else None
    if picture is None:
        raise CameraError(f"{photo}: not a photograph that can be decoded")
    rgb, anatomy = _cropped(
        cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False), anatomy, face_px
    )
    rgb, opacity = _with_coat(rgb, _matte(rgb.shape[:2], anatomy), anatomy)
    return rgb, opacity, anatomy


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
