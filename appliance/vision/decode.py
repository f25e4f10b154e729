"""CenterFace's four maps to boxes and landmarks.

Enters: int8 maps at stride 4. Leaves: float32 faces in pixels of the model's input, best first.
A frame has 15,000 cells and a handful of faces, so cells are chosen while still quantised and
only the chosen ones are turned into numbers.

Source: Xu et al., "CenterFace", arXiv:1911.03599, and its published decoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from appliance.types import Tensor, TensorSpec
from appliance.vision.quantise import dequantise

STRIDE = 4
"""Input pixels per cell."""

MAX_OVERLAP = 0.3
"""Intersection over union from which the weaker of two boxes is the same face."""

MAX_CANDIDATES = 512
"""Cells looked at per frame, the best ones: bounds the time that a hostile picture can take."""

_Boxes = npt.NDArray[np.float32]
_NEIGHBOURHOOD = np.ones((3, 3), np.uint8)
_SIGN_BIT = np.uint8(0x80)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Faces in pixels of the model's input, best score first.

    Attributes:
        boxes: (n, 4) float32: x1 y1 x2 y2.
        landmarks: (n, 5, 2) float32, order as in types.Points.
        scores: (n,) float32 in [0, 1].
    """

    boxes: _Boxes
    landmarks: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


def decode(
    outputs: tuple[Tensor, ...],
    specs: tuple[TensorSpec, ...],
    *,
    min_score: float,
    max_faces: int,
) -> Detections:
    """The faces in a frame.

    Args:
        outputs: heat map (1, h, w, 1) after the sigmoid, scale (1, h, w, 2), offset (1, h, w, 2),
            landmarks (1, h, w, 10), all quantised.
        specs: of these four.
        min_score: least score.
        max_faces: at most so many, the best ones.
    """
    heat = outputs[0][0, :, :, 0]  # (h, w)
    rows, columns = _peaks(heat, _least_level(min_score, specs[0]))
    scores = dequantise(heat[rows, columns], specs[0])  # (k,)
    scale, offset, relative = (
        dequantise(output[0, rows, columns], spec)  # (k, 2), (k, 2), (k, 10)
        for output, spec in zip(outputs[1:], specs[1:], strict=True)
    )
    # All of CenterFace's pairs are y before x; ours are x before y.
    size = np.exp(scale[:, ::-1]) * STRIDE
    cells = np.stack([columns, rows], axis=1).astype(np.float32)
    centre = (cells + offset[:, ::-1] + 0.5) * STRIDE
    corner = centre - size / 2
    boxes = np.concatenate([corner, corner + size], axis=1)
    kept = suppress(boxes, max_overlap=MAX_OVERLAP, most=max_faces)
    fractions = relative[kept].reshape(-1, 5, 2)[:, :, ::-1]
    landmarks = corner[kept, None] + fractions * size[kept, None]
    return Detections(boxes[kept], landmarks, scores[kept])


def suppress(boxes: _Boxes, *, max_overlap: float, most: int) -> npt.NDArray[np.intp]:
    """Non-maximum suppression: of boxes that overlap, keep the first.

    Args:
        boxes: (n, 4) float32, best first; each has an area.
        max_overlap: greatest intersection over union of two that are kept.
        most: stop after so many.

    Returns:
        (k,) indices of those kept, increasing.
    """
    overlap = _pairwise_iou(boxes)
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    for index in range(len(boxes)):
        if len(kept) == most:
            break
        if alive[index]:
            kept.append(index)
            alive &= overlap[index] <= max_overlap
    return np.array(kept, np.intp)


def _least_level(min_score: float, spec: TensorSpec) -> int:
    """The smallest quantised value that stands for at least min_score."""
    return math.ceil(min_score / spec.scale + spec.zero_point - 1e-6)


def _peaks(
    heat: npt.NDArray[np.integer], least: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of cells at or above `least` that no neighbour exceeds, best first."""
    # OpenCV dilates unsigned bytes only: with the sign bit flipped, int8 keeps its order.
    levels = heat.view(np.uint8) ^ (_SIGN_BIT if heat.dtype == np.int8 else np.uint8(0))
    highest = cv2.dilate(levels, _NEIGHBOURHOOD)
    # Flat, because numpy's search in two dimensions is twenty times as slow.
    cells = np.flatnonzero((levels == highest) & (heat >= least))
    found = levels.ravel()[cells]
    best = np.argsort(~found, kind="stable")[:MAX_CANDIDATES]
    rows, columns = np.divmod(cells[best], heat.shape[1])
    return rows, columns


def _pairwise_iou(boxes: _Boxes) -> npt.NDArray[np.float32]:
    """(n, n) intersection over union of (n, 4) boxes with themselves."""
    x1, y1, x2, y2 = boxes.T  # one axis at a time: numpy is slow over a last axis of two
    width = np.minimum(x2[:, None], x2) - np.maximum(x1[:, None], x1)
    height = np.minimum(y2[:, None], y2) - np.maximum(y1[:, None], y1)
    shared = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    area = (x2 - x1) * (y2 - y1)
    return np.asarray(shared / (area[:, None] + area - shared), np.float32)
