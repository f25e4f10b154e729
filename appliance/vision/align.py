"""A face, upright and centred: the only crop that an embedder understands."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from appliance.types import Image, Points

TEMPLATE_SIDE = 112
TEMPLATE: Points = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float32,
)
"""Where the five landmarks of an upright face lie in a crop of 112 x 112 pixels.

Source: InsightFace (deepinsight/insightface, `arcface_dst` in face_align.py, MIT): the template
that ArcFace and MobileFaceNet were trained with.
"""

_LEAST_SPREAD = 1e-4
"""Of the two variances of five points, the smaller over the larger, below which they lie on a
line. A face seen from the side has 0.05 and more."""

_Complex = npt.NDArray[np.complex128]


def alignable(landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which faces can be aligned: five finite points, not on one line, not a mirrored face.

    Args:
        landmarks: (..., 5, 2) float32 pixels.

    Returns:
        (...) bool.
    """
    with np.errstate(invalid="ignore"):  # not finite: NaN, and every comparison below is False
        points, _ = _centred(landmarks)
        # Eigenvalues of the points' covariance are (total ± elongation) / 2.
        total = np.sum(np.abs(points) ** 2, axis=-1)
        elongation = np.abs(np.sum(points**2, axis=-1))
        spread = total - elongation > _LEAST_SPREAD * (total + elongation)
        # Of the template's variance, the part that the best similarity explains.
        explained = np.abs(np.sum(points.conj() * _FACE, axis=-1)) ** 2
        return np.asarray(spread & (explained > _LEAST_SPREAD * total * _FACE_TOTAL), np.bool_)


def similarity(landmarks: Points, template: Points) -> npt.NDArray[np.float64]:
    """The rotation, scale and shift that bring landmarks nearest to a template.

    Least squares over x → a·x + b without reflection. In the plane a rotation with a scale is
    one complex number, and Umeyama's solution becomes a quotient of two sums: no SVD.

    Args:
        landmarks: (5, 2) float32 pixels.
        template: (5, 2) float32 pixels, where they should come to lie.

    Returns:
        (2, 3) float64, as cv2.warpAffine takes it.

    Raises:
        ValueError: see `alignable`.

    Source: Umeyama 1991, doi:10.1109/34.88573, eq. 40-42.
    """
    if not alignable(landmarks):
        raise ValueError(f"landmarks are not those of a face: {landmarks.tolist()}")
    points, centre = _centred(landmarks)
    wanted, target = _centred(template)
    turn = np.vdot(points, wanted) / np.vdot(points, points).real
    shift = target - turn * centre
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def align(
    image: Image, landmarks: Points, *, side: int = TEMPLATE_SIDE, out: Image | None = None
) -> Image:
    """The face, upright and centred, by the similarity that best maps its landmarks.

    Args:
        image: (h, w, 3) uint8.
        landmarks: (5, 2) float32 pixels of `image`.
        side: pixels of the square result.
        out: (side, side, 3) uint8, overwritten and returned; a new array if None.

    Returns:
        (side, side, 3) uint8; outside the picture is black.

    Raises:
        ValueError: see `similarity`, or `out` has another shape.
    """
    if out is None:
        out = np.empty((side, side, 3), np.uint8)
    elif out.shape != (side, side, 3):
        raise ValueError(f"out has shape {out.shape}, must be {(side, side, 3)}")
    matrix = similarity(landmarks, TEMPLATE * np.float32(side / TEMPLATE_SIDE))
    cv2.warpAffine(image, matrix, (side, side), dst=out, flags=cv2.INTER_LINEAR)
    return out


def _centred(points: npt.NDArray[Any]) -> tuple[_Complex, _Complex]:
    """(..., n, 2) points as (..., n) complex numbers about their mean, and the mean."""
    plane = points[..., 0] + 1j * points[..., 1].astype(np.float64)
    mean = plane.mean(axis=-1, keepdims=True)
    return plane - mean, mean[..., 0]


_FACE, _ = _centred(TEMPLATE)
_FACE_TOTAL = float(np.sum(np.abs(_FACE) ** 2))
