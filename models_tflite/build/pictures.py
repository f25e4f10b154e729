"""Pictures to calibrate on, made of the photographs that the repository ships.

Enters: a folder of photographs and a seed. Leaves: street-like collages for the detector, and
aligned faces for the embedder. Everything is drawn from one seeded generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from appliance.types import Face, Image
from appliance.vision.align import TEMPLATE_SIDE, align

PHOTOS = (
    "astronaut",
    "biden",
    "grace_hopper",
    "obama",
    "obama2",
    "obama3",
    "obama_partial_face",
    "obama_partial_face2",
)

_HALF = 0.5
_BLURRED, _BLURRED_OR_COARSE = 0.3, 0.5
"""Parts of the pictures."""

_Detect = Callable[[Image], list[Face]]


def photographs(folder: Path) -> list[Image]:
    """Every photograph, in a fixed order.

    Raises:
        FileNotFoundError: one is missing or no picture.
    """
    found = []
    for name in PHOTOS:
        image = cv2.imread(str(folder / f"{name}.jpg"), cv2.IMREAD_COLOR)
        if image is None:
            raise FileNotFoundError(f"{folder / name}.jpg: missing or not a picture")
        found.append(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8))
    return found


def collages(photos: list[Image], size: tuple[int, int], count: int, seed: int) -> Iterator[Image]:
    """People over something: each several photographs, scaled, flipped, relit and blurred.

    Args:
        photos: see photographs().
        size: (height, width) of each.
        count: how many.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    height, _ = size
    for _ in range(count):
        canvas = _background(photos, size, rng)
        for _ in range(int(rng.integers(1, 6))):
            person = _changed(photos[rng.integers(len(photos))], rng)
            # Faces are a fifth to a tenth of a photograph's height: 12 to 200 px of 384.
            tall = int(height * 2.0 ** rng.uniform(-2.0, 1.3))
            wide = max(8, round(person.shape[1] * tall / person.shape[0]))
            person = np.asarray(
                cv2.resize(person, (wide, tall), interpolation=cv2.INTER_AREA), np.uint8
            )
            _paste(canvas, person, rng)
        yield _relit(canvas, rng)


def faces(photos: list[Image], detect: _Detect, count: int, seed: int) -> Iterator[Image]:
    """Aligned faces: the photographs' own, with their landmarks moved, relit and blurred.

    Args:
        photos: see photographs().
        detect: gives the faces of a photograph.
        count: how many.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    known = [(photo, found[0].landmarks) for photo in photos if (found := detect(photo))]
    for _ in range(count):
        photo, landmarks = known[rng.integers(len(known))]
        eyes_px = float(np.linalg.norm(landmarks[0] - landmarks[1]))
        moved = landmarks + rng.normal(0.0, 0.04 * eyes_px, landmarks.shape)
        crop = align(photo, moved.astype(np.float32))
        yield np.ascontiguousarray(_changed(crop, rng)[:TEMPLATE_SIDE, :TEMPLATE_SIDE])


def _background(photos: list[Image], size: tuple[int, int], rng: np.random.Generator) -> Image:
    """A part of a photograph, much enlarged, or one colour with grain."""
    height, width = size
    if rng.random() < _HALF:
        colour = rng.integers(0, 256, 3)
        grain = rng.normal(0.0, rng.uniform(0.0, 25.0), (height, width, 3))
        return np.clip(colour + grain, 0, 255).astype(np.uint8)
    photo = photos[rng.integers(len(photos))]
    side = min(photo.shape[:2]) // 3
    top = rng.integers(photo.shape[0] - side)
    left = rng.integers(photo.shape[1] - side)
    part = photo[top : top + side, left : left + side]
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _changed(image: Image, rng: np.random.Generator) -> Image:
    """Maybe mirrored, then relit, then maybe out of focus or coarse."""
    if rng.random() < _HALF:
        image = image[:, ::-1]
    image = _relit(np.ascontiguousarray(image), rng)
    blur = rng.random()
    if blur < _BLURRED:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.5)).astype(np.uint8)
    elif blur < _BLURRED_OR_COARSE:
        height, width = image.shape[:2]
        factor = rng.uniform(1.5, 4.0)
        small = (max(1, int(width / factor)), max(1, int(height / factor)))
        coarse = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(coarse, (width, height)), np.uint8)
    return image


def _relit(image: Image, rng: np.random.Generator) -> Image:
    """Another gain, offset, gamma and white balance."""
    levels = np.arange(256) / 255.0
    gain = rng.uniform(0.6, 1.3) * rng.uniform(0.92, 1.08, 3)
    curve = levels[:, None] ** rng.uniform(0.75, 1.4) * gain + rng.uniform(-0.08, 0.08)
    table = np.clip(np.rint(255 * curve), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(np.ascontiguousarray(image), table[None]), np.uint8)


def _paste(canvas: Image, person: Image, rng: np.random.Generator) -> None:
    """Anywhere, also over the edge."""
    height, width = canvas.shape[:2]
    tall, wide = person.shape[:2]
    top = int(rng.integers(-tall // 4, max(height - tall // 2, 1)))
    left = int(rng.integers(-wide // 3, max(width - wide // 2, 1)))
    y1, x1 = max(top, 0), max(left, 0)
    y2, x2 = min(top + tall, height), min(left + wide, width)
    canvas[y1:y2, x1:x2] = person[y1 - top : y2 - top, x1 - left : x2 - left]
