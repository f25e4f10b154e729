from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.accelerator.manifest import Manifest, ModelFile
from appliance.accelerator.simulated import SimulatedAccelerator
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.errors import AcceleratorError, ModelError
from appliance.interfaces import Accelerator
from appliance.types import ModelSpec, Tensor, TensorSpec
from appliance.vision.quantise import dequantise

MODELS = Manifest.load(Path(__file__).parents[2] / "models_tflite").models
TOY = ModelSpec(
    name="toy",
    role="detector",
    id="toy@000000000000",
    sha256="0" * 64,
    pixel_mean=0.0,
    pixel_std=1.0,
    input=TensorSpec("in", (1, 6, 4, 3), "int8", 1.0, -128),
    outputs=(
        TensorSpec("rows", (1, 6), "int8", 1.0, 0),
        TensorSpec("columns", (1, 4), "int8", 1.0, 0),
    ),
)


@dataclass(frozen=True)
class Side:
    """An accelerator, and its device's own buffers as they are now."""

    accelerator: Accelerator
    buffers: Callable[[], list[Tensor]]


def toy(tensor: Tensor) -> tuple[Tensor, ...]:
    return tensor[..., 0].max(axis=2), tensor[..., 0].max(axis=1)


def start_simulated() -> Side:
    accelerator = SimulatedAccelerator(TOY, toy)
    return Side(accelerator, lambda: [accelerator._input, *accelerator._outputs])


def start_tflite(model: ModelFile) -> Side:
    accelerator = TfliteAccelerator(model, threads=1)

    def buffers() -> list[Tensor]:
        interpreter: Any = accelerator._interpreter
        tensors = [accelerator._input, *accelerator._outputs]
        return [interpreter.get_tensor(index) for index in tensors]

    return Side(accelerator, buffers)


@pytest.fixture(scope="module", params=[None, *MODELS], ids=["simulated", *map(str, MODELS)])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    opened = start_simulated() if request.param is None else start_tflite(request.param)
    with opened.accelerator:
        yield opened


def some_input(spec: ModelSpec, seed: int = 0) -> Tensor:
    return np.random.default_rng(seed).integers(-128, 128, spec.input.shape).astype(np.int8)


def test_outputs_are_as_the_spec_says_and_belong_to_the_caller(side: Side) -> None:
    accelerator = side.accelerator
    tensor = some_input(accelerator.spec)
    before = tensor.copy()
    first = accelerator.run(tensor)
    assert [(o.shape, o.dtype.name) for o in first] == [
        (spec.shape, spec.dtype) for spec in accelerator.spec.outputs
    ]
    kept = [output.copy() for output in first]
    other = accelerator.run(some_input(accelerator.spec, seed=1))
    again = accelerator.run(tensor)
    assert np.array_equal(tensor, before)
    assert all(map(np.array_equal, first, kept))
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_the_device_holds_nothing_after_a_run(side: Side) -> None:
    side.accelerator.run(some_input(side.accelerator.spec))
    assert not any(buffer.any() for buffer in side.buffers())


def test_a_tensor_that_is_not_the_input_is_refused_and_nothing_breaks(side: Side) -> None:
    tensor = some_input(side.accelerator.spec)
    for wrong in (tensor[:, 1:], tensor[0], tensor.view(np.uint8), tensor.astype(np.float32)):
        with pytest.raises(AcceleratorError, match="the model takes int8"):
            side.accelerator.run(wrong)
    assert side.accelerator.run(tensor)


@pytest.mark.parametrize("model", [None, MODELS[0]], ids=["simulated", "tflite"])
def test_a_closed_accelerator_refuses(model: ModelFile | None) -> None:
    opened = start_simulated() if model is None else start_tflite(model)
    with opened.accelerator as accelerator:
        pass
    with pytest.raises(AcceleratorError):
        accelerator.run(some_input(accelerator.spec))


def test_an_unplugged_device_refuses_and_holds_nothing() -> None:
    accelerator = SimulatedAccelerator(TOY, toy)
    accelerator.run(some_input(TOY))
    accelerator.present = False
    with pytest.raises(AcceleratorError, match="gone"):
        accelerator.run(some_input(TOY))
    assert accelerator.runs == 1


def cosine(a: Tensor, b: Tensor, spec: TensorSpec) -> float:
    x, y = (dequantise(t, spec).astype(np.float64).ravel() for t in (a, b))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.spec.name)
def test_stored_inputs_give_the_stored_outputs(model: ModelFile) -> None:
    assert hashlib.sha256(model.golden.path.read_bytes()).hexdigest() == model.golden.sha256
    with np.load(model.golden.path) as golden, TfliteAccelerator(model, threads=1) as accelerator:
        for index, tensor in enumerate(golden["input"]):
            outputs = accelerator.run(tensor[None])
            for place, (output, spec) in enumerate(zip(outputs, model.spec.outputs, strict=True)):
                stored = golden[f"output_{place}"][index]
                assert cosine(output, stored, spec) >= model.golden.min_cosine, spec.name


def changed(model: ModelFile, **what: Any) -> ModelFile:
    return dataclasses.replace(model, spec=dataclasses.replace(model.spec, **what))


def test_a_manifest_that_contradicts_the_graph_is_refused() -> None:
    model = MODELS[0]
    taken, given = model.spec.input, model.spec.outputs
    wide = dataclasses.replace(taken, shape=(1, 8, 8, 3))
    scaled = dataclasses.replace(taken, scale=taken.scale * 1.01)
    shifted = dataclasses.replace(given[-1], zero_point=given[-1].zero_point - 1)
    for contradiction, says in (
        (changed(model, input=wide), r"the manifest says int8 \[1, 8, 8, 3\]"),
        (changed(model, input=scaled), "the manifest says 0|the manifest says 1"),
        (changed(model, outputs=(*given[:-1], shifted)), "zero point"),
        (changed(model, outputs=given + given), "the manifest describes"),
    ):
        with pytest.raises(ModelError, match=says):
            TfliteAccelerator(contradiction, threads=1)
