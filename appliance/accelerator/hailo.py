"""Models on a Hailo-8 or 8L: HailoRT 4.23 (branch `hailo8`), async inference on one shared VDevice.

Written from HailoRT's documented Python interface; it has not run on hardware yet. The contract
test is tests/contracts/test_accelerator.py with the marker `hailo`.

A HEF has a quantisation of its own. HailoRT is asked for float32 on both sides, and here tensors
are turned from and into the manifest's quantisation, so that a model has one spec on every device
and can change from a Hailo to the CPU between two frames. The HEF must have been compiled from the
model's float graph without on-chip normalisation: its real inputs and outputs are the model's.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from appliance.accelerator import versions
from appliance.accelerator.contract import check_input
from appliance.accelerator.manifest import DeviceFile, ModelFile
from appliance.errors import AcceleratorError, ModelError
from appliance.types import ModelSpec, Tensor, TensorSpec

log = logging.getLogger(__name__)

DEVICE = Path("/dev/hailo0")
RUN_MS = 2000
"""Some 400 times what such a model takes; below the watch service's watchdog by far."""

Real = npt.NDArray[np.float32]


class HailoDevice:
    """The one VDevice of this process, which every model on it shares.

    Args:
        forced: use a driver that is not of the library's version.

    Raises:
        AcceleratorError: no library, no driver, they do not fit, or no device.
    """

    def __init__(self, *, forced: bool = False) -> None:
        try:
            import hailo_platform
        except ImportError as e:
            raise AcceleratorError(
                f"hailo_platform cannot be imported ({e}): install python3-hailort and make the"
                " environment with --system-site-packages"
            ) from e
        versions.check_hailo(hailo_platform.__version__, versions.hailo_driver(), forced=forced)
        self.vendor: Any = hailo_platform
        try:
            params = hailo_platform.VDevice.create_params()
            params.scheduling_algorithm = hailo_platform.HailoSchedulingAlgorithm.ROUND_ROBIN
            self.shared: Any = hailo_platform.VDevice(params)
        except hailo_platform.HailoRTException as e:
            raise AcceleratorError(f"no Hailo device: {e}") from e

    def close(self) -> None:
        """Give the device back; the models on it must have been closed before."""
        if self.shared is None:
            return
        try:
            self.shared.release()
        except self.vendor.HailoRTException as e:
            log.warning("the Hailo cannot be given back: %s", e)  # gone already, most likely
        self.shared = None


class HailoAccelerator:
    """One model on the shared device.

    Args:
        model: must have a `hailo` file in the manifest.
        device: open, and closed by whoever opened it.

    Raises:
        ModelError: there is no such file, it is not what the manifest says, or its tensors are
            not the model's.
        AcceleratorError: the device refused the HEF, as it does one for another architecture.
    """

    def __init__(self, model: ModelFile, *, device: HailoDevice) -> None:
        if model.hailo is None:
            raise ModelError(f"{model.spec.name}: the manifest has no file for a Hailo")
        self._spec = model.spec
        self._failure = device.vendor.HailoRTException
        self._infer: Any = None
        content = model.hailo.verify()
        try:
            infer = device.shared.create_infer_model(content)
            self._input, self._outputs = _buffers(infer, model, model.hailo)
            infer.set_batch_size(1)
            infer.input().set_format_type(device.vendor.FormatType.FLOAT32)
            for name in model.hailo.outputs:
                infer.output(name).set_format_type(device.vendor.FormatType.FLOAT32)
            self._infer = infer.configure()
            self._bindings = self._infer.create_bindings()
            self._bindings.input().set_buffer(self._input)
            for name, buffer in zip(model.hailo.outputs, self._outputs, strict=True):
                self._bindings.output(name).set_buffer(buffer)
        except self._failure as e:
            raise AcceleratorError(
                f"{model.hailo.path} (for a {model.hailo.architecture}) was refused: {e}"
            ) from e

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        check_input(self._spec, tensor)
        if self._infer is None:
            raise AcceleratorError(f"{self._spec.id}: the accelerator is closed")
        _dequantise(tensor[0], self._spec.input, out=self._input)
        try:
            self._run()
            outputs = zip(self._outputs, self._spec.outputs, strict=True)
            return tuple(_quantise(real, spec) for real, spec in outputs)
        finally:
            for buffer in (self._input, *self._outputs):
                buffer.fill(0)

    def close(self) -> None:
        """Let go of the model; `run` is refused from then on."""
        self._infer = self._bindings = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        """One asynchronous job, waited for; a job that failed tells so in its callback only."""
        finished = threading.Event()
        failures: list[object] = []

        def done(completion_info: Any) -> None:  # noqa: ANN401 - called by that keyword
            failures.extend(filter(None, [completion_info.exception]))
            finished.set()

        try:
            self._infer.wait_for_async_ready(timeout_ms=RUN_MS)
            self._infer.run_async([self._bindings], done).wait(RUN_MS)
        except self._failure as e:
            self.close()  # its buffers may still be written to: they are not used again
            raise AcceleratorError(f"{self._spec.id}: the Hailo failed: {e}") from e
        if not finished.wait(RUN_MS / 1000) or failures:
            self.close()
            raise AcceleratorError(f"{self._spec.id}: the Hailo failed: {failures or 'no answer'}")


def _buffers(infer: Any, model: ModelFile, file: DeviceFile) -> tuple[Real, list[Real]]:  # noqa: ANN401 - the vendor has no types
    """Host memory for one input and the outputs, of the HEF's shapes, held against the model's."""
    names = {output.name for output in infer.outputs}
    if names != set(file.outputs):
        raise ModelError(
            f"{file.path}: has outputs {', '.join(sorted(names))},"
            f" the manifest says {', '.join(sorted(file.outputs))}"
        )
    streams = [infer.input(), *(infer.output(name) for name in file.outputs)]
    for stream, spec in zip(streams, (model.spec.input, *model.spec.outputs), strict=True):
        shape = tuple(stream.shape)  # without a batch; a vector may come as (1, 1, n)
        if _without_ones(shape) != _without_ones(spec.shape):
            raise ModelError(
                f"{file.path}: {spec.name} is {list(shape)}, the manifest says {list(spec.shape)}"
            )
    first, *rest = (np.zeros(tuple(stream.shape), np.float32) for stream in streams)
    return first, rest


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _dequantise(tensor: Tensor, spec: TensorSpec, *, out: Real) -> None:
    """Real values of a quantised tensor, into a buffer of the same number of elements."""
    np.subtract(tensor.reshape(out.shape), spec.zero_point, out=out, dtype=np.float32)
    out *= np.float32(spec.scale)


def _quantise(real: Real, spec: TensorSpec) -> Tensor:
    """A quantised tensor of real values, of the spec's shape; what does not fit is the nearest."""
    bounds = np.iinfo(spec.dtype)
    steps = np.rint(real.reshape(spec.shape) / np.float32(spec.scale)) + spec.zero_point
    quantised: Tensor = np.clip(steps, bounds.min, bounds.max).astype(spec.dtype)
    return quantised
