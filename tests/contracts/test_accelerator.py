"""The Accelerator seam: simulated, the CPU, the CPU after a device failed; Coral and Hailo.

The last two run the same tests where the hardware answers: `pytest -m coral`, `pytest -m hailo`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.accelerator import coral, golden, hailo
from appliance.accelerator.choose import Accelerators
from appliance.accelerator.fallback import Candidate, FallbackAccelerator
from appliance.accelerator.manifest import DeviceFile, Golden, Manifest, ModelFile
from appliance.accelerator.simulated import SimulatedAccelerator
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.errors import AcceleratorError, ModelError
from appliance.interfaces import Accelerator
from appliance.types import ModelSpec, Tensor, TensorSpec

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


def start_fallen(model: ModelFile) -> Side:
    """An accelerator whose device was pulled out before the first run."""
    fallen = FallbackAccelerator(model, candidates=[simulated_candidate(model)], cpu=on_cpu)
    device: Any = fallen._active
    device.present = False
    return Side(fallen, lambda: [device._input, *device._outputs])


def on_cpu(model: ModelFile) -> TfliteAccelerator:
    return TfliteAccelerator(model, threads=1)


def simulated_candidate(model: ModelFile, *, wrong: bool = False) -> Candidate:
    """A device of our own that computes on the CPU, right or wrong."""

    def compute(tensor: Tensor) -> tuple[Tensor, ...]:
        with on_cpu(model) as cpu:
            outputs = cpu.run(tensor)
        return tuple(np.roll(output, 1, axis=1) for output in outputs) if wrong else outputs

    return Candidate(
        "simulated",
        lambda opened: SimulatedAccelerator(opened.spec, compute),
        lambda opened: opened.golden.min_cosine,
    )


def start_coral(model: ModelFile) -> Side:
    device = coral.attached()
    if device is None or model.coral is None:
        pytest.skip("no Coral is plugged in, or the model was not compiled for one")
    accelerator = coral.open_coral(model, device=device)
    interpreter: Any = accelerator._interpreter
    tensors = [accelerator._input, *accelerator._outputs]
    return Side(accelerator, lambda: [interpreter.get_tensor(index) for index in tensors])


def start_hailo(model: ModelFile) -> Side:
    if not hailo.DEVICE.exists() or model.hailo is None:
        pytest.skip("no Hailo is there, or the model was not compiled for one")
    accelerator = hailo.HailoAccelerator(model, device=hailo.HailoDevice())
    return Side(accelerator, lambda: [accelerator._input, *accelerator._outputs])


SMALL = min(MODELS, key=lambda model: np.prod(model.spec.input.shape))
STARTS: dict[str, Callable[[], Side]] = {
    "simulated": start_simulated,
    **{f"tflite {m.spec.name}": partial(start_tflite, m) for m in MODELS},
    f"fallen {SMALL.spec.name}": partial(start_fallen, SMALL),
}
HARDWARE = [
    pytest.param(partial(start, m), id=f"{kind} {m.spec.name}", marks=getattr(pytest.mark, kind))
    for kind, start in (("coral", start_coral), ("hailo", start_hailo))
    for m in [m for m in MODELS if getattr(m, kind)] or [SMALL]
]


@pytest.fixture(
    scope="module",
    params=[*(pytest.param(start, id=name) for name, start in STARTS.items()), *HARDWARE],
)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    opened = request.param()
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


@pytest.mark.parametrize(
    "start",
    [start_simulated, partial(start_tflite, SMALL), partial(start_fallen, SMALL), *HARDWARE],
)
def test_a_closed_accelerator_refuses(start: Callable[[], Side]) -> None:
    opened = start()
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


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.spec.name)
def test_stored_inputs_give_the_stored_outputs(model: ModelFile) -> None:
    with on_cpu(model) as accelerator:
        golden.check(model, accelerator, min_cosine=model.golden.min_cosine, inputs=100)


def test_a_device_that_answers_otherwise_is_found_out() -> None:
    wrong = simulated_candidate(SMALL, wrong=True).open(SMALL)
    with wrong, pytest.raises(AcceleratorError, match=r"stored input 0 gives .* at cosine"):
        golden.check(SMALL, wrong, min_cosine=SMALL.golden.min_cosine)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_a_golden_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "golden.npz"
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    model = dataclasses.replace(SMALL, golden=Golden(path, sha256, 0.9))
    with on_cpu(model) as accelerator, pytest.raises(ModelError, match="holds no stored inputs"):
        golden.check(model, accelerator, min_cosine=0.9)


def test_the_fastest_device_that_answers_right_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    candidates = [simulated_candidate(SMALL)]
    with FallbackAccelerator(SMALL, candidates=candidates, cpu=on_cpu) as accelerator:
        assert (accelerator.device, accelerator.fallen) == ("simulated", None)
        assert accelerator.spec is SMALL.spec
    assert not caplog.records


def test_a_device_that_answers_wrong_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    candidates = [simulated_candidate(SMALL, wrong=True)]
    with FallbackAccelerator(SMALL, candidates=candidates, cpu=on_cpu) as accelerator:
        assert accelerator.device == "cpu"
        assert accelerator.fallen is not None
        assert "at cosine" in accelerator.fallen
        assert accelerator.run(some_input(SMALL.spec))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_device_that_vanishes_is_left_once_and_loudly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tensor = some_input(SMALL.spec)
    with on_cpu(SMALL) as cpu:
        right = cpu.run(tensor)
    candidates = [simulated_candidate(SMALL)]
    with FallbackAccelerator(SMALL, candidates=candidates, cpu=on_cpu) as accelerator:
        device: Any = accelerator._active
        device.present = False
        for _ in range(3):  # the very run that failed is answered, too
            assert all(map(np.array_equal, accelerator.run(tensor), right))
        device.present = True  # plugged in again: left alone until the service starts anew
        accelerator.run(tensor)
        assert accelerator.device == "cpu"
        assert accelerator.fallen == f"simulated: {SMALL.spec.id}: the accelerator is gone"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_wrong_tensor_is_no_fault_of_the_devices() -> None:
    candidates = [simulated_candidate(SMALL)]
    with FallbackAccelerator(SMALL, candidates=candidates, cpu=on_cpu) as accelerator:
        with pytest.raises(AcceleratorError, match="the model takes int8"):
            accelerator.run(some_input(SMALL.spec)[:, 1:])
        assert accelerator.device == "simulated"


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
@pytest.mark.skipif(
    coral.attached() is not None or hailo.DEVICE.exists(), reason="there is an accelerator"
)
def test_without_an_accelerator_the_cpu_is_no_fall(wanted: Any) -> None:
    with Accelerators(wanted, threads=1) as accelerators:
        assert accelerators.open(SMALL).device == "cpu"
        assert accelerators.device == "cpu"
        assert accelerators.fallen == ()


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        pytest.param(
            "coral",
            "no Coral is plugged in",
            marks=pytest.mark.skipif(coral.attached() is not None, reason="there is a Coral"),
        ),
        pytest.param(
            "hailo",
            "install python3-hailort",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("hailo_platform") is not None,
                reason="hailo_platform is installed",
            ),
        ),
    ],
)
def test_an_accelerator_that_is_asked_for_and_not_there_is_a_fall(wanted: Any, says: str) -> None:
    with Accelerators(wanted, threads=1) as accelerators:
        accelerator = accelerators.open(SMALL)
        assert accelerators.device == "cpu"
        assert says in accelerators.fallen[0]
        assert accelerator.run(some_input(SMALL.spec))


def test_a_coral_without_its_twin_or_its_library_is_refused() -> None:
    with pytest.raises(ModelError, match="no file for a Coral"):
        coral.open_coral(dataclasses.replace(SMALL, coral=None), device="usb")
    twin = DeviceFile(SMALL.path, SMALL.spec.sha256, 0.9)
    with pytest.raises(AcceleratorError, match="is not known to work; proven: libedgetpu 16"):
        coral.open_coral(dataclasses.replace(SMALL, coral=twin), device="usb")
    if coral.attached() is None:
        with pytest.raises(AcceleratorError, match=r"libedgetpu\.so\.1"):
            coral.open_coral(dataclasses.replace(SMALL, coral=twin), device="usb", forced=True)


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
