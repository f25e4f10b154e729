"""A scarf, a surgical mask or sunglasses on a photographed face.

Shapes hang on the landmarks. Cloth takes the light of what it covers: the picture's own brightness,
smoothed until no feature is left in it, times folds that are drawn. Glasses are dark in any light,
and mirror a little of the sky.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from appliance.camera.script import Anatomy, Cover
from appliance.types import Image

Grid = npt.NDArray[np.float32]
_MASK_COLOUR = (172, 196, 208)
_SCARF_COLOUR = (128, 52, 48)


def put_on(cover: Cover, rgb: Image, alpha: npt.NDArray[np.uint8], anatomy: Anatomy) -> None:
    """Draw a cover over a cut-out, in place.

    Args:
        cover: "" does nothing.
        rgb: (h, w, 3) uint8.
        alpha: (h, w) uint8; becomes opaque where the cover is.
        anatomy: in pixels of `rgb`.
    """
    if not cover:
        return
    if cover == "sunglasses":
        _sunglasses(rgb, anatomy)
        return
    shape = _mask_outline(anatomy) if cover == "mask" else _scarf_outline(anatomy)
    face_px = anatomy.face[2] - anatomy.face[0]
    sheet = np.zeros(alpha.shape, np.uint8)
    cv2.fillPoly(sheet, [_smooth(shape)], 255, cv2.LINE_AA, shift=_SHIFT)
    cloth = (
        _mask_cloth(anatomy, alpha.shape) if cover == "mask" else _scarf_cloth(anatomy, alpha.shape)
    )
    lit = _light(rgb, alpha, face_px) * cloth * _rounded(sheet, face_px)
    colour = np.array(_MASK_COLOUR if cover == "mask" else _SCARF_COLOUR, np.float32)
    painted = np.clip(lit[:, :, None] * colour, 0, 255)
    if cover == "mask":
        _ear_loops(rgb, anatomy)
    weight = (sheet.astype(np.float32) / 255)[:, :, None]
    rgb[:] = (rgb * (1 - weight) + painted * weight).astype(np.uint8)
    np.maximum(alpha, sheet, out=alpha)


_SHIFT = 4
"""Sub-pixel bits of OpenCV's polygon corners."""


def _mask_outline(anatomy: Anatomy) -> list[tuple[float, float]]:
    x1, _, x2, y2 = anatomy.face
    left_eye, right_eye, nose, left_mouth, right_mouth = anatomy.landmarks
    w, h = x2 - x1, y2 - anatomy.face[1]
    eyes_y = (left_eye[1] + right_eye[1]) / 2
    bridge = ((left_eye[0] + right_eye[0]) / 4 + nose[0] / 2, eyes_y + 0.42 * (nose[1] - eyes_y))
    chin_x = (left_mouth[0] + right_mouth[0]) / 2
    return [
        bridge,
        (bridge[0] + 0.16 * w, bridge[1] + 0.06 * h),
        (x2 - 0.07 * w, nose[1] - 0.08 * h),
        (x2 - 0.03 * w, right_mouth[1]),
        (x2 - 0.16 * w, y2 - 0.08 * h),
        (chin_x + 0.12 * w, y2 + 0.05 * h),
        (chin_x - 0.12 * w, y2 + 0.05 * h),
        (x1 + 0.16 * w, y2 - 0.08 * h),
        (x1 + 0.03 * w, left_mouth[1]),
        (x1 + 0.07 * w, nose[1] - 0.08 * h),
        (bridge[0] - 0.16 * w, bridge[1] + 0.06 * h),
    ]


def _scarf_outline(anatomy: Anatomy) -> list[tuple[float, float]]:
    x1, y1, x2, y2 = anatomy.face
    nose = anatomy.landmarks[2]
    w, h = x2 - x1, y2 - y1
    return [
        (nose[0], nose[1] - 0.02 * h),
        (x2 - 0.18 * w, nose[1] - 0.05 * h),
        (x2 + 0.06 * w, nose[1] - 0.09 * h),
        (x2 + 0.14 * w, y2 - 0.10 * h),
        (x2 + 0.26 * w, y2 + 0.26 * h),
        (x2 - 0.10 * w, y2 + 0.48 * h),
        (nose[0], y2 + 0.54 * h),
        (x1 + 0.10 * w, y2 + 0.48 * h),
        (x1 - 0.26 * w, y2 + 0.26 * h),
        (x1 - 0.14 * w, y2 - 0.10 * h),
        (x1 - 0.06 * w, nose[1] - 0.09 * h),
        (x1 + 0.18 * w, nose[1] - 0.05 * h),
    ]


def _smooth(corners: Sequence[tuple[float, float]]) -> npt.NDArray[np.int32]:
    """Cut the corners three times (Chaikin 1974), in OpenCV's fixed point."""
    points = np.array(corners, np.float64)
    for _ in range(3):
        ahead = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * ahead, 0.25 * points + 0.75 * ahead], 1)
        points = points.reshape(-1, 2)
    fixed: npt.NDArray[np.int32] = np.round(points * 2**_SHIFT).astype(np.int32)
    return fixed


def _face_grid(anatomy: Anatomy, shape: tuple[int, ...]) -> tuple[Grid, Grid]:
    """Across and down, in face widths from the nose tip."""
    nose = anatomy.landmarks[2]
    w = anatomy.face[2] - anatomy.face[0]
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return (x - nose[0]) / w, (y - nose[1]) / w


def _mask_cloth(anatomy: Anatomy, shape: tuple[int, ...]) -> Grid:
    """Three pleats across, and a bright ridge over the nose."""
    u, v = _face_grid(anatomy, shape)
    v = v - 0.25 * u * u  # pleats hang between the ears
    pleats = np.zeros(shape, np.float32)
    for at in (0.12, 0.28, 0.44):
        pleats += np.exp(-(((v - at) / 0.018) ** 2)) - 0.5 * np.exp(
            -(((v - at + 0.035) / 0.02) ** 2)
        )
    ridge = 0.10 * np.exp(-((u / 0.12) ** 2))
    cloth: Grid = 1.08 - 0.22 * pleats + ridge - 0.35 * u * u
    return cloth


def _scarf_cloth(anatomy: Anatomy, shape: tuple[int, ...]) -> Grid:
    """Knitted ribs along folds that sag between the shoulders."""
    u, v = _face_grid(anatomy, shape)
    sag = v - 0.28 * np.cos(1.9 * u) + 0.012 * np.sin(7 * u + 9 * v)
    folds = np.sin(2 * np.pi * sag / 0.31) + 0.5 * np.sin(2 * np.pi * (sag + 0.3 * u) / 0.19)
    ribs = np.sin(2 * np.pi * (u + 0.06 * np.sin(14 * sag)) / 0.055)
    cloth: Grid = (0.95 + 0.17 * folds + 0.06 * ribs - 0.30 * u * u).astype(np.float32)
    return cloth


def _light(rgb: Image, alpha: npt.NDArray[np.uint8], face_px: float) -> Grid:
    """Brightness of the person, 1 on average over the face, without any feature."""
    weight = alpha.astype(np.float32) / 255
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    sigma = 0.35 * face_px
    smooth = cv2.GaussianBlur(grey * weight, (0, 0), sigma) / (
        cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-3
    )
    mean = float((smooth * weight).sum() / max(1.0, float(weight.sum())))
    light: Grid = np.clip(0.55 + 0.45 * smooth / max(mean, 1.0), 0.6, 1.25).astype(np.float32)
    return light


def _rounded(sheet: npt.NDArray[np.uint8], face_px: float) -> Grid:
    """Darker towards the rim: cloth turns away from the camera there."""
    inside = cv2.distanceTransform((sheet > 127).astype(np.uint8), cv2.DIST_L2, 3)  # noqa: PLR2004
    rim: Grid = (0.72 + 0.28 * np.clip(inside / (0.10 * face_px), 0, 1)).astype(np.float32)
    return rim


_LENS = ((-0.44, -0.20), (0.0, -0.27), (0.40, -0.20), (0.40, 0.14), (0.16, 0.38), (-0.24, 0.40),
         (-0.45, 0.16))  # fmt: skip
"""Outline of a lens from the eye's centre, in distances between the eyes; x grows to the nose."""
_LENS_TOP, _LENS_FOOT = (20.0, 21.0, 25.0), (58.0, 54.0, 50.0)
_FRAME_COLOUR = (16, 15, 15)


def _sunglasses(rgb: Image, anatomy: Anatomy) -> None:
    """Two lenses, darker at the top, in a frame with a bridge and temples."""
    left, right = (np.array(eye) for eye in anatomy.landmarks[:2])
    across = right - left
    wide = float(np.hypot(*across))
    along, down = across / wide, np.array([-across[1], across[0]]) / wide
    drop = 0.05 * wide * down
    thick = max(1, round(0.06 * wide))
    x1, _, x2, _ = anatomy.face
    for eye, inwards, edge in ((left, 1.0, x1), (right, -1.0, x2)):
        corners = [eye + drop + wide * (inwards * x * along + y * down) for x, y in _LENS]
        lens = _smooth([(float(x), float(y)) for x, y in corners])
        hinge = eye + wide * (-0.42 * inwards * along - 0.14 * down)
        ear = np.array([edge, hinge[1] - 0.02 * wide])
        _stroke(rgb, hinge, ear, thick)
        _glaze(rgb, lens, float(eye[1]), wide)
        cv2.polylines(rgb, [lens], True, _FRAME_COLOUR, max(1, thick // 2), cv2.LINE_AA, _SHIFT)
    ends = [eye + drop - 0.12 * wide * down for eye in (left, right)]
    _stroke(rgb, ends[0] + 0.36 * across, ends[1] - 0.36 * across, thick)


def _glaze(rgb: Image, lens: npt.NDArray[np.int32], eye_y: float, wide: float) -> None:
    """Fill a lens: almost opaque, its foot lighter than its top."""
    sheet = np.zeros(rgb.shape[:2], np.uint8)
    cv2.fillPoly(sheet, [lens], 255, cv2.LINE_AA, shift=_SHIFT)
    rows = np.arange(rgb.shape[0], dtype=np.float32)
    share = np.clip((rows - eye_y) / (0.8 * wide) + 0.5, 0, 1)[:, None, None]
    glass = np.array(_LENS_TOP) * (1 - share) + np.array(_LENS_FOOT) * share
    weight = 0.94 * (sheet.astype(np.float32) / 255)[:, :, None]
    rgb[:] = (rgb * (1 - weight) + glass * weight).astype(np.uint8)


def _stroke(
    rgb: Image, start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], thick: int
) -> None:
    a, b = (tuple(round(float(n)) for n in point) for point in (start, end))
    cv2.line(rgb, a, b, _FRAME_COLOUR, thick, cv2.LINE_AA)


def _ear_loops(rgb: Image, anatomy: Anatomy) -> None:
    x1, _, x2, y2 = anatomy.face
    nose = anatomy.landmarks[2]
    w, h = x2 - x1, y2 - anatomy.face[1]
    thick = max(1, round(0.012 * w))
    for side, x in ((-1, x1), (1, x2)):
        ear = (round(x + side * 0.05 * w), round(nose[1] - 0.16 * h))
        for y in (nose[1] - 0.06 * h, anatomy.landmarks[4][1] + 0.03 * h):
            cloth = (round(x - side * 0.06 * w), round(y))
            cv2.line(rgb, cloth, ear, (205, 212, 214), thick, cv2.LINE_AA)
