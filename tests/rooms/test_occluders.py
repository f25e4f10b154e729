"""Things drawn in front of faces: where they lie, and that a seed draws the same one again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.evaluation.occluders import KINDS, Kind, hide
from appliance.types import Image, Points
from appliance.vision.align import TEMPLATE, align
from appliance.vision.occlusion import Part, area

PHOTOS = Path(__file__).resolve().parents[1] / "photos"

PLACES: dict[Kind, Part] = {
    "mask": "lower",
    "scarf": "lower",
    "hand": "lower",
    "sunglasses": "eyes",
    "cap": "upper",
}


@pytest.fixture(scope="module")
def portrait() -> tuple[Image, Points]:
    image = cv2.imread(str(PHOTOS / "obama.jpg"), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    small = cv2.resize(image, (300, 366), interpolation=cv2.INTER_AREA)
    # Where the eyes and the mouth are does not matter here: shapes follow whatever they are told.
    return np.asarray(small, np.uint8), (TEMPLATE + np.array([90.0, 60.0])).astype(np.float32)


def changed(before: Image, after: Image) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.asarray(np.abs(before.astype(int) - after).max(axis=2) > 12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_part_is_covered_and_the_rest_is_left(
    kind: Kind, portrait: tuple[Image, Points]
) -> None:
    image, landmarks = portrait
    bare = align(image, landmarks)
    for seed in range(6):
        hidden = align(hide(image, landmarks, kind, seed), landmarks)
        touched = changed(bare, hidden)
        place = area(PLACES[kind])
        inside = touched[place].mean()
        outside = touched[~place].mean()
        assert inside > 0.2, (kind, seed)
        # A brim casts a shadow on what is below it.
        assert outside < (0.3 if kind == "cap" else 0.16), (kind, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_draws_the_same_again_and_another_draws_another(
    kind: Kind, portrait: tuple[Image, Points]
) -> None:
    image, landmarks = portrait
    first = hide(image, landmarks, kind, 1)
    assert np.array_equal(first, hide(image, landmarks, kind, 1))
    assert not np.array_equal(first, hide(image, landmarks, kind, 2))


def test_the_picture_itself_is_left_alone(portrait: tuple[Image, Points]) -> None:
    image, landmarks = portrait
    before = image.copy()
    hide(image, landmarks, "scarf", 3)
    assert np.array_equal(image, before)


def test_a_dark_picture_gets_a_dark_mask(portrait: tuple[Image, Points]) -> None:
    image, landmarks = portrait
    dark = (image // 4).astype(np.uint8)
    lit, dim = (
        align(hide(picture, landmarks, "mask", 5), landmarks)[90:105, 40:72].mean()
        for picture in (image, dark)
    )
    assert dim < 0.6 * lit


def test_a_face_at_the_edge_of_the_picture_is_no_trouble(portrait: tuple[Image, Points]) -> None:
    image, landmarks = portrait
    for kind in KINDS:
        hidden = hide(image, (landmarks - np.array([120.0, 100.0])).astype(np.float32), kind, 1)
        assert hidden.shape == image.shape
