"""A face, upright and centred: the only crop that an embedder understands."""

from __future__ import annotations

from dataclasses import dataclass

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
line; and of the template's variance, the part that must be explained. A face seen from the side
has 0.05 and more of the first, any face more than half of the second."""


@dataclass(frozen=True, slots=True)
class _Fit:
    """x → turn * x + shift in the complex plane, and how much of an answer that is."""

    turn: complex
    shift: complex
    sound: bool


def alignable(landmarks: Points) -> bool:
    """Whether a face can be aligned: five finite points, not on one line, not a mirrored face.

    Args:
        landmarks: (5, 2) float32 pixels.
    """
    return _fit(landmarks, TEMPLATE).sound


def similarity(landmarks: Points, template: Points) -> npt.NDArray[np.float64]:
    """The rotation, scale and shift that bring landmarks nearest to a template.

    Least squares without reflection. In the plane a rotation with a scale is one complex number,
    and Umeyama's solution becomes a quotient of two sums: no SVD.

    Args:
        landmarks: (5, 2) float32 pixels.
        template: (5, 2) float32 pixels, where they should come to lie.

    Returns:
        (2, 3) float64, as cv2.warpAffine takes it.

    Raises:
        ValueError: see `alignable`.

    Source: Umeyama 1991, doi:10.1109/34.88573, eq. 40-42.
    """
    fit = _fit(landmarks, template)
    if not fit.sound:
        raise ValueError(f"landmarks are not those of a face: {landmarks.tolist()}")
    turn, shift = fit.turn, fit.shift
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


def _fit(landmarks: Points, template: Points) -> _Fit:
    """Plain numbers, as five points are too few for numpy to be worth its calls."""
    centre, points = _centred(landmarks)
    target, wanted = _centred(template)
    total = sum(abs(point) ** 2 for point in points)
    # Eigenvalues of the points' covariance are (total ± elongation) / 2.
    elongation = abs(sum(point * point for point in points))
    agreement = sum(p.conjugate() * w for p, w in zip(points, wanted, strict=True))
    explained = abs(agreement) ** 2
    full = total * sum(abs(want) ** 2 for want in wanted)
    # Written so that NaN, which is what points that are not finite give, is not sound.
    sound = (
        total - elongation > _LEAST_SPREAD * (total + elongation)
        and explained > _LEAST_SPREAD * full
    )
    turn = agreement / total if sound else 0j
    return _Fit(turn, target - turn * centre, sound)


def _centred(points: Points) -> tuple[complex, list[complex]]:
    """The mean of five points, and the points about it."""
    plane = [complex(x, y) for x, y in points.tolist()]
    mean = sum(plane) / len(plane)
    return mean, [point - mean for point in plane]
