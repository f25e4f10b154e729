from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.accelerator.manifest import Manifest
from appliance.accelerator.simulated import SimulatedAccelerator
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.errors import AcceleratorError, ModelError
from appliance.interfaces import Detector
from appliance.types import Image, ModelSpec, Tensor, TensorSpec
from appliance.vision.detector import FaceDetector
from appliance.vision.simulated import SimulatedDetector

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "tests/photos/obama.jpg"

ROWS, COLUMNS = 48, 80
SQUARES = ModelSpec(
    name="squares",
    role="detector",
    id="squares@000000000000",
    sha256="0" * 64,
    pixel_mean=0.0,
    pixel_std=1.0,
    input=TensorSpec("in", (1, 4 * ROWS, 4 * COLUMNS, 3), "int8", 1.0, -128),
    outputs=(
        TensorSpec("heatmap", (1, ROWS, COLUMNS, 1), "int8", 1 / 256, -128),
        TensorSpec("scale", (1, ROWS, COLUMNS, 2), "int8", 1 / 32, 0),
        TensorSpec("offset", (1, ROWS, COLUMNS, 2), "int8", 1 / 128, 0),
        TensorSpec("landmarks", (1, ROWS, COLUMNS, 10), "int8", 1 / 128, 0),
    ),
)


def see_squares(tensor: Tensor) -> tuple[Tensor, ...]:
    """A CenterFace that sees bright squares: the brighter, the surer."""
    maps = [np.zeros(spec.shape, np.int8) for spec in SQUARES.outputs]
    heat, scale, offset, landmarks = (m[0] for m in maps)
    heat.fill(-128)
    pixels = (tensor[0].astype(np.int16) + 128).astype(np.uint8).max(axis=2)
    lit = (pixels > 32).astype(np.uint8)
    for x, y, width, height, _ in cv2.connectedComponentsWithStats(lit)[2][1:]:
        centre = np.array([y + height / 2, x + width / 2]) / 4 - 0.5
        row, column = np.rint(centre).astype(int)
        heat[row, column] = int(pixels[y + height // 2, x + width // 2]) // 2
        scale[row, column] = np.rint(np.log(np.array([height, width]) / 4) * 32)
        offset[row, column] = np.clip(np.rint((centre - (row, column)) * 128), -128, 127)
        landmarks[row, column] = np.array([38, 42, 38, 86, 64, 64, 90, 48, 90, 80])
    return tuple(maps)


def squares(width: int, height: int) -> Image:
    """Two of them: the left one is larger and darker."""
    image = np.zeros((height, width, 3), np.uint8)
    side = min(width, height) // 3
    image[side : 2 * side, side // 4 : side // 4 + side] = (0, 150, 0)
    image[side : side + side * 3 // 4, -side:-1] = (250, 0, 0)
    return image


def photo(width: int, height: int) -> Image:
    """A portrait, as large as fits."""
    portrait = cv2.imread(str(PHOTO), cv2.IMREAD_COLOR_RGB)
    assert portrait is not None
    scale = min(width / portrait.shape[1], height / portrait.shape[0])
    small = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    image = np.zeros((height, width, 3), np.uint8)
    image[: small.shape[0], : small.shape[1]] = small
    return image


@dataclass(frozen=True)
class Side:
    """A detector, pictures that it has to find faces in, and how many."""

    detector: Detector
    picture: Callable[[int, int], Image]
    faces: int


@pytest.fixture(scope="module", params=["simulated", "toy-model", "tflite"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    with ExitStack() as stack:
        if request.param == "simulated":
            yield Side(SimulatedDetector(), squares, 2)
        elif request.param == "toy-model":
            toy = stack.enter_context(SimulatedAccelerator(SQUARES, see_squares))
            yield Side(FaceDetector(toy, min_score=0.1, max_faces=8), squares, 2)
        else:
            model = Manifest.load(ROOT / "models_tflite").model("centerface-640x384")
            real = stack.enter_context(TfliteAccelerator(model, threads=1))
            yield Side(FaceDetector(real, min_score=0.5, max_faces=8), photo, 1)


@pytest.mark.parametrize("size", [(1280, 720), (640, 384), (300, 500), (333, 251)])
def test_faces_are_found_in_pixels_of_any_picture(side: Side, size: tuple[int, int]) -> None:
    image = side.picture(*size)
    before = image.copy()
    faces = side.detector.detect(image)
    assert len(faces) == side.faces
    assert np.array_equal(image, before)
    assert [f.score for f in faces] == sorted((f.score for f in faces), reverse=True)
    for face in faces:
        assert 0.0 <= face.score <= 1.0
        assert (face.box.shape, face.landmarks.shape) == ((4,), (5, 2))
        assert face.box.dtype == face.landmarks.dtype == np.float32
        x1, y1, x2, y2 = face.box
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]
        left, right, nose, *mouth = face.landmarks
        assert x1 < left[0] < right[0] < x2
        assert y1 < left[1] < nose[1] < min(m[1] for m in mouth) < y2


def test_a_box_is_where_the_square_is() -> None:
    toy = FaceDetector(SimulatedAccelerator(SQUARES, see_squares), min_score=0.1, max_faces=8)
    for detector in (toy, SimulatedDetector()):
        image = np.zeros((720, 1280, 3), np.uint8)
        image[301:401, 800:900] = (200, 200, 0)
        (face,) = detector.detect(image)
        assert face.box == pytest.approx([800, 301, 900, 401], abs=8.0)  # two cells' worth


def test_two_sizes_in_turn_give_what_each_gives_alone(side: Side) -> None:
    large, small = side.picture(1280, 720), side.picture(300, 500)
    alone = [side.detector.detect(image)[0].box for image in (large, large, small)]
    in_turn = [side.detector.detect(image)[0].box for image in (large, small)]
    assert np.array_equal(alone[0], in_turn[0])
    assert np.array_equal(alone[2], in_turn[1])


def test_darkness_holds_no_face(side: Side) -> None:
    assert side.detector.detect(np.zeros((720, 1280, 3), np.uint8)) == []


def held(detector: FaceDetector) -> bool:
    return bool(detector._letterbox.canvas.any() or detector._tensor.any())


def test_no_picture_stays_in_the_detector_even_when_the_device_vanishes() -> None:
    accelerator = SimulatedAccelerator(SQUARES, see_squares)
    detector = FaceDetector(accelerator, min_score=0.1, max_faces=8)
    detector.detect(squares(320, 192))
    assert not held(detector)
    accelerator.present = False
    with pytest.raises(AcceleratorError):
        detector.detect(squares(320, 192))
    assert not held(detector)


def test_the_number_of_faces_is_bounded_and_the_best_stay() -> None:
    accelerator = SimulatedAccelerator(SQUARES, see_squares)
    (face,) = FaceDetector(accelerator, min_score=0.1, max_faces=1).detect(squares(320, 192))
    assert face.box[0] > 160


def test_a_face_that_cannot_be_aligned_is_no_face() -> None:
    def collinear(tensor: Tensor) -> tuple[Tensor, ...]:
        *maps, landmarks = see_squares(tensor)
        return (*maps, np.repeat(landmarks[..., :1], 10, axis=-1))

    accelerator = SimulatedAccelerator(SQUARES, collinear)
    assert FaceDetector(accelerator, min_score=0.1, max_faces=8).detect(squares(320, 192)) == []


def test_a_model_of_another_kind_is_refused() -> None:
    embedder = ModelSpec("e", "embedder", "e@0", "0", 0.0, 1.0, SQUARES.input, SQUARES.outputs)
    headless = ModelSpec("d", "detector", "d@0", "0", 0.0, 1.0, SQUARES.input, SQUARES.outputs[:3])
    for spec, says in ((embedder, "a detector is needed"), (headless, "CenterFace's are")):
        with pytest.raises(ModelError, match=says):
            FaceDetector(SimulatedAccelerator(spec, see_squares), min_score=0.5, max_faces=8)
