"""CenterFace's four maps to boxes and landmarks.

Enters: int8 maps at stride 4. Leaves: float32 faces in pixels of the model's input, best first.
A frame has 15,000 cells and a handful of faces, so cells are chosen while still quantised and
only the chosen ones are turned into numbers.

Source: Xu et al., "CenterFace", arXiv:1911.03599, and its published decoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
_NEIGHBOURS = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])


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
        boxes: (n, 4) float32, best first.
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
    rows, columns = np.nonzero(heat >= least)
    levels = heat[rows, columns]
    if len(levels) > MAX_CANDIDATES:
        best = np.argpartition(levels, -MAX_CANDIDATES)[-MAX_CANDIDATES:]
        rows, columns, levels = rows[best], columns[best], levels[best]
    around_rows = np.clip(rows[:, None] + _NEIGHBOURS[:, 0], 0, heat.shape[0] - 1)
    around_columns = np.clip(columns[:, None] + _NEIGHBOURS[:, 1], 0, heat.shape[1] - 1)
    peak = levels >= heat[around_rows, around_columns].max(axis=1)
    rows, columns, levels = rows[peak], columns[peak], levels[peak]
    # Ascending, stable and then reversed would also do; a negated int8 -128 would overflow.
    order = np.argsort(levels, kind="stable")[::-1]
    return rows[order], columns[order]


def _pairwise_iou(boxes: _Boxes) -> npt.NDArray[np.float32]:
    """(n, n) intersection over union of (n, 4) boxes with themselves."""
    corner, opposite = boxes[:, :2], boxes[:, 2:]
    area = np.prod(opposite - corner, axis=1)
    inner = np.minimum(opposite[:, None], opposite) - np.maximum(corner[:, None], corner)
    shared = np.prod(np.maximum(inner, 0), axis=2)
    union = area[:, None] + area - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float32).tiny), np.float32)
