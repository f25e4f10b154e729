"""The shipped models for hidden faces on real photographs, behind things drawn on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from appliance.evaluation.hidden import Eyes, Gallery, open_eyes
from appliance.evaluation.models import FOLDER
from appliance.evaluation.occluders import Kind, hide
from appliance.evaluation.pictures import decode, fingerprint
from appliance.types import Face, Image
from appliance.vision.align import align
from appliance.vision.reader import COLUMNS, WHOLE

PHOTOS = Path(__file__).resolve().parents[1] / "photos"
LISTED = {"obama": "obama.jpg", "biden": "biden.jpg", "hopper": "grace_hopper.jpg"}


@pytest.fixture(scope="module")
def eyes() -> Iterator[Eyes]:
    with ExitStack() as stack:
        yield open_eyes(stack, folder=FOLDER)


def look(name: str, eyes: Eyes, kind: Kind | None = None, seed: int = 1) -> Image:
    """An aligned face of tests/photos, maybe hidden and found again."""
    path = PHOTOS / name
    image = decode(fingerprint(path)[0], path)

    def largest(of: Image) -> Face:
        return max(eyes.detector.detect(of), key=lambda face: float(face.box[2] - face.box[0]))

    if kind is not None:
        image = hide(image, largest(image).landmarks, kind, seed)
    return align(image, largest(image).landmarks)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mask", "scarf", "sunglasses", "cap"])
def test_a_person_is_the_nearest_behind_something(kind: Kind, eyes: Eyes) -> None:
    gallery = Gallery({who: look(name, eyes) for who, name in LISTED.items()}, eyes)
    found = 0
    for seed in range(3):
        for name in ("obama2.jpg", "obama3.jpg"):
            read = eyes.reader.read(look(name, eyes, kind, seed), eyes.tables)
            share = 1 / len(read.vectors) if read.vectors else 0.0
            worth = gallery.worth({c: (v, share) for c, v in read.vectors.items()})
            found += bool(worth.argmax() == gallery.subjects["obama"])
    assert found >= 5


@pytest.mark.parametrize("name", ["obama.jpg", "obama2.jpg", "biden.jpg", "grace_hopper.jpg"])
def test_a_bare_face_is_read_as_a_whole_one(name: str, eyes: Eyes) -> None:
    reading = eyes.reader.read(look(name, eyes), (WHOLE, *COLUMNS))
    assert reading.hidden == "none"
    assert set(reading.vectors) == {WHOLE}


@pytest.mark.parametrize(("kind", "column"), [("mask", "lower"), ("sunglasses", "eyes")])
def test_what_hides_a_face_is_told(kind: Kind, column: str, eyes: Eyes) -> None:
    told = [
        eyes.reader.read(look(name, eyes, kind, seed), (WHOLE, *COLUMNS)).hidden
        for name in ("obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg")
        for seed in range(3)
    ]
    assert told.count(column) >= 10  # type: ignore[arg-type]  # one of HIDDEN


def test_the_embedder_for_hidden_faces_is_of_no_other_form(eyes: Eyes) -> None:
    crop = look("obama.jpg", eyes)
    lower, whole = eyes.embed_part["lower"](crop), eyes.embed_whole(crop)
    assert lower.shape == whole.shape
    # It was taught to say of the upper half what the other one says of the whole.
    assert float(np.dot(lower, whole)) > 0.4
