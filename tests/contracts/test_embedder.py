from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.accelerator.manifest import Manifest
from appliance.accelerator.simulated import SimulatedAccelerator
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.errors import AcceleratorError, ModelError
from appliance.interfaces import Embedder
from appliance.types import Image, ModelSpec, Tensor, TensorSpec, Vector
from appliance.vision.align import align
from appliance.vision.detector import FaceDetector
from appliance.vision.embedder import FaceEmbedder
from appliance.vision.simulated import SimulatedEmbedder

ROOT = Path(__file__).parents[2]
TOY = ModelSpec(
    name="toy",
    role="embedder",
    id="toy@000000000000",
    sha256="0" * 64,
    pixel_mean=127.5,
    pixel_std=128.0,
    input=TensorSpec("in", (1, 32, 32, 3), "int8", 1 / 128, -1),
    outputs=(TensorSpec("embedding", (1, 12), "int8", 0.1, 3),),
)


def quarters(tensor: Tensor) -> tuple[Tensor, ...]:
    """The mean colour of each quarter of the crop."""
    parts = tensor[0].reshape(2, 16, 2, 16, 3).mean(axis=(1, 3))
    return (parts.reshape(1, 12).astype(np.int8),)


@pytest.fixture(scope="module", params=["simulated", "toy-model", "tflite"])
def embedder(request: pytest.FixtureRequest) -> Iterator[Embedder]:
    with ExitStack() as stack:
        if request.param == "simulated":
            yield SimulatedEmbedder()
        elif request.param == "toy-model":
            yield FaceEmbedder(stack.enter_context(SimulatedAccelerator(TOY, quarters)))
        else:
            model = Manifest.load(ROOT / "models_tflite").model("mobilefacenet-112")
            yield FaceEmbedder(stack.enter_context(TfliteAccelerator(model, threads=1)))


def crop_of(embedder: Embedder, colour: tuple[int, int, int]) -> Image:
    crop = np.zeros((embedder.side, embedder.side, 3), np.uint8)
    crop[:] = colour
    cv2.circle(crop, (embedder.side // 3, embedder.side // 2), embedder.side // 5, (90, 90, 90), -1)
    return crop


def test_a_crop_becomes_a_unit_vector_that_belongs_to_the_caller(embedder: Embedder) -> None:
    red, blue = crop_of(embedder, (220, 20, 20)), crop_of(embedder, (20, 20, 220))
    before = red.copy()
    vector = embedder.embed(red)
    assert vector.shape == (embedder.dim,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    kept = vector.copy()
    other = embedder.embed(blue)
    assert np.array_equal(vector, kept)
    assert np.array_equal(red, before)
    assert np.array_equal(embedder.embed(red), kept)
    assert float(vector @ other) < 0.999


def test_a_model_has_an_id_that_names_its_file(embedder: Embedder) -> None:
    name, _, digits = embedder.model_id.partition("@")
    assert name
    assert len(digits) == 12


def test_a_crop_of_another_size_is_refused(embedder: Embedder) -> None:
    crop = np.zeros((embedder.side + 1, embedder.side, 3), np.uint8)
    with pytest.raises(ValueError, match="a crop of shape"):
        embedder.embed(crop)


def test_no_crop_stays_in_the_embedder_even_when_the_device_vanishes() -> None:
    accelerator = SimulatedAccelerator(TOY, quarters)
    embedder = FaceEmbedder(accelerator)
    embedder.embed(crop_of(embedder, (200, 100, 50)))
    assert not embedder._tensor.any()
    accelerator.present = False
    with pytest.raises(AcceleratorError):
        embedder.embed(crop_of(embedder, (200, 100, 50)))
    assert not embedder._tensor.any()


def test_a_vector_without_a_direction_is_an_error_and_not_a_division() -> None:
    spec = TOY.outputs[0]
    zeros = SimulatedAccelerator(TOY, lambda _: (np.full(spec.shape, spec.zero_point, np.int8),))
    embedder = FaceEmbedder(zeros)
    with pytest.raises(AcceleratorError, match="a vector of zeros"):
        embedder.embed(crop_of(embedder, (200, 100, 50)))


def test_a_model_of_another_kind_is_refused() -> None:
    detector = ModelSpec("d", "detector", "d@0", "0", 0.0, 1.0, TOY.input, TOY.outputs)
    oblong = ModelSpec(
        "e", "embedder", "e@0", "0", 0.0, 1.0, TensorSpec("in", (1, 8, 9, 3), "int8", 1.0, 0), ()
    )
    for spec, says in ((detector, "an embedder is needed"), (oblong, "takes a square")):
        with pytest.raises(ModelError, match=says):
            FaceEmbedder(SimulatedAccelerator(spec, quarters))


PERSON = ("obama", "obama2", "obama3")
STRANGERS = ("biden", "astronaut")


@pytest.fixture(scope="module")
def templates() -> dict[str, Vector]:
    """One of each photograph, by the models that we ship."""
    manifest = Manifest.load(ROOT / "models_tflite")
    with (
        TfliteAccelerator(manifest.model("centerface-320x320"), threads=1) as finds,
        TfliteAccelerator(manifest.model("mobilefacenet-112"), threads=1) as tells,
    ):
        detector = FaceDetector(finds, min_score=0.5, max_faces=8)
        embedder = FaceEmbedder(tells)

        def template(name: str) -> Vector:
            image = cv2.imread(str(ROOT / f"tests/photos/{name}.jpg"), cv2.IMREAD_COLOR_RGB)
            assert image is not None, name
            picture = image.astype(np.uint8)
            return embedder.embed(align(picture, detector.detect(picture)[0].landmarks))

        return {name: template(name) for name in (*PERSON, *STRANGERS)}


def test_photographs_of_one_person_are_alike(templates: dict[str, Vector]) -> None:
    first, *others = (templates[name] for name in PERSON)
    assert all(float(first @ other) > 0.5 for other in others)


def test_photographs_of_strangers_are_not(templates: dict[str, Vector]) -> None:
    for stranger in STRANGERS:
        others = (templates[name] for name in templates if name != stranger)
        assert all(float(templates[stranger] @ other) < 0.4 for other in others)
