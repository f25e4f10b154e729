"""Frames with a known number of faces, for benches: the photographs of tests/photos on a street.

Enters: how many faces of which size. Leaves: a short walk of frames and where the faces are. The
photographs are public-domain portraits (tests/photos/README.md); a face is pasted with its
surroundings and soft edges, and drifts by a pixel or two per frame as a walker does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from appliance.camera.script import load_script
from appliance.camera.street import street
from appliance.evaluation.pictures import decode
from appliance.types import Image

PHOTOS = Path(__file__).resolve().parents[2] / "tests" / "photos"
SIZE = (1280, 720)

_AROUND = 0.55
"""Of the face's size, shown on each side of it."""
_STEP_PX = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """Frames of one scene.

    Attributes:
        frames: (n, height, width, 3) uint8 RGB.
        boxes: (n, faces, 4) float32: where the faces are, x1 y1 x2 y2.
    """

    frames: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """A face with its surroundings, and the face's box in it."""

    image: Image
    box: tuple[float, float, float, float]


def portraits() -> list[Portrait]:
    """The faces of the repository's photographs whose places are known."""
    found = []
    for name, anatomy in sorted(load_script(PHOTOS / "street.toml")[1].items()):
        path = PHOTOS / name
        image = decode(path.read_bytes(), path)
        x1, y1, x2, y2 = anatomy.face
        margin = _AROUND * max(x2 - x1, y2 - y1)
        left, top = max(0, round(x1 - margin)), max(0, round(y1 - margin))
        right, bottom = round(x2 + margin), round(y2 + margin)
        crop = np.ascontiguousarray(image[top:bottom, left:right])
        found.append(Portrait(crop, (x1 - left, y1 - top, x2 - left, y2 - top)))
    return found


def walk(
    faces: int,
    *,
    face_px: float = 80.0,
    frames: int = 8,
    size: tuple[int, int] = SIZE,
    seed: int = 1,
    people: list[Portrait] | None = None,
) -> Walk:
    """A scene with so many faces in every frame.

    Args:
        faces: spread over a grid, none hides another.
        face_px: width of each.
        frames: how many.
        size: (width, height).
        seed: of the street and the places.
        people: whose faces, in turn; None takes those of the repository.
    """
    width, height = size
    people = people or portraits()
    rng = np.random.default_rng(seed)
    background = street(size, seed)
    columns = max(1, math.ceil(math.sqrt(faces * width / height)))
    rows = max(1, math.ceil(faces / columns))
    pictures = np.empty((frames, height, width, 3), np.uint8)
    boxes = np.zeros((frames, faces, 4), np.float32)
    jitter = rng.uniform(-0.08, 0.08, (faces, 2))
    heading = rng.uniform(0, 2 * math.pi, faces)
    for index in range(frames):
        pictures[index] = background
        for face in range(faces):
            row, column = divmod(face, columns)
            x = (column + 0.5 + jitter[face, 0]) * width / columns
            y = (row + 0.5 + jitter[face, 1]) * height / rows
            away = _STEP_PX * index
            centre = x + away * math.cos(heading[face]), y + away * math.sin(heading[face])
            boxes[index, face] = _paste(
                pictures[index], people[face % len(people)], centre, face_px
            )
    return Walk(pictures, boxes)


def _paste(
    frame: Image, portrait: Portrait, centre: tuple[float, float], face_px: float
) -> tuple[float, float, float, float]:
    """Draw a portrait so that its face has its centre there; returns the face's box."""
    x1, y1, x2, y2 = portrait.box
    scale = face_px / (x2 - x1)
    h, w = (max(1, round(side * scale)) for side in portrait.image.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(portrait.image, (w, h), interpolation=how)
    left = round(centre[0] - scale * (x1 + x2) / 2)
    top = round(centre[1] - scale * (y1 + y2) / 2)
    height, width = frame.shape[:2]
    rows = slice(max(0, top), min(height, top + h))
    columns = slice(max(0, left), min(width, left + w))
    inside = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    weight = _soft(h, w)[inside][..., None]
    onto = frame[rows, columns]
    onto[:] = onto * (1 - weight) + small[inside] * weight
    return x1 * scale + left, y1 * scale + top, x2 * scale + left, y2 * scale + top


def _soft(height: int, width: int) -> npt.NDArray[np.float32]:
    """Opacity that falls off towards the border."""
    edge = max(1, min(height, width) // 10)
    opacity = np.zeros((height, width), np.float32)
    opacity[edge:-edge, edge:-edge] = 1.0
    return np.asarray(cv2.GaussianBlur(opacity, (0, 0), edge / 2), np.float32)
