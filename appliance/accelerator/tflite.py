"""A model on the CPU, by the TensorFlow Lite runtime; and what it shares with a Coral.

Enters: a quantised tensor. Leaves: quantised tensors. What they mean is decoded in vision/.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from appliance.accelerator.contract import check_input
from appliance.accelerator.manifest import DeviceFile, ModelFile
from appliance.errors import AcceleratorError, ModelError
from appliance.types import ModelSpec, Tensor, TensorSpec

RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
"""The same API twice; the first that is installed is used."""

_SCALE_TOLERANCE = 1e-6
"""Relative: the graph holds scales as float32, the manifest as decimal text."""


class TfliteAccelerator:
    """One quantised model on CPU threads, or on what a delegate brings.

    Only the graph's own input and output can be overwritten after a run: what the runtime keeps
    of the layers between them stays until its next run writes over it.

    Args:
        model: its file is hashed, and the very bytes that were hashed are loaded.
        threads: CPU threads of one run.
        file: the file to load instead of `model`'s own: the twin for the delegate's device.
        delegate: from the runtime's load_delegate; must outlive this object, which keeps it.

    Raises:
        ModelError: a wrong hash, not a model, or not the model that the manifest describes.
        AcceleratorError: no runtime is installed.
    """

    def __init__(
        self,
        model: ModelFile,
        *,
        threads: int,
        file: DeviceFile | None = None,
        delegate: Any = None,  # noqa: ANN401 - the runtime has no types
    ) -> None:
        self._spec = model.spec
        self._delegate = delegate
        self._interpreter: Any | None = _load(model, threads, file or model, delegate)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        check_input(self._spec, tensor)
        interpreter = self._interpreter
        if interpreter is None:
            raise AcceleratorError(f"{self._spec.id}: the accelerator is closed")
        try:
            # A view of a tensor must be gone before the next invoke: none is ever given a name.
            interpreter.tensor(self._input)()[...] = tensor
            interpreter.invoke()
            outputs = tuple(interpreter.get_tensor(index) for index in self._outputs)
        except (RuntimeError, ValueError) as e:
            raise AcceleratorError(f"{self._spec.id}: the runtime failed: {first_line(e)}") from e
        finally:
            for index in (self._input, *self._outputs):
                interpreter.tensor(index)().fill(0)
        return outputs

    def close(self) -> None:
        """Let go of the model; `run` is refused from then on."""
        self._interpreter = None
        self._delegate = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _load(
    model: ModelFile,
    threads: int,
    file: ModelFile | DeviceFile,
    delegate: Any,  # noqa: ANN401 - the runtime has no types
) -> Any:  # noqa: ANN401 - same
    """An interpreter of the verified bytes, its tensors allocated and checked."""
    content = file.verify()
    try:
        interpreter = runtime().Interpreter(
            model_content=content,
            num_threads=threads,
            experimental_delegates=None if delegate is None else [delegate],
        )
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as e:
        raise ModelError(f"{file.path}: cannot be loaded: {first_line(e)}") from e
    described = (model.spec.input, *model.spec.outputs)
    found = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    if len(found) != len(described):
        raise ModelError(
            f"{file.path}: has {len(found)} inputs and outputs,"
            f" the manifest describes {len(described)}"
        )
    for spec, detail in zip(described, found, strict=True):
        _check(file.path, spec, detail)
    return interpreter


def runtime() -> Any:  # noqa: ANN401 - a module without types
    """The runtime that is installed.

    Raises:
        AcceleratorError: none is.
    """
    for name in RUNTIMES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise AcceleratorError(f"no TensorFlow Lite runtime is installed: {' or '.join(RUNTIMES)}")


def _check(path: Path, spec: TensorSpec, detail: dict[str, Any]) -> None:
    """Refuse a tensor of the graph that is not as the manifest says: it would decode to nonsense.

    Outputs are compared in the order of the manifest, which is the order of the graph.
    """
    shape, dtype = tuple(int(n) for n in detail["shape"]), np.dtype(detail["dtype"]).name
    scale, zero_point = detail["quantization"]
    if (shape, dtype) != (spec.shape, spec.dtype):
        raise ModelError(
            f"{path}: {spec.name} is {dtype} {list(shape)},"
            f" the manifest says {spec.dtype} {list(spec.shape)}"
        )
    if zero_point != spec.zero_point or not np.isclose(
        scale, spec.scale, rtol=_SCALE_TOLERANCE, atol=0.0
    ):
        raise ModelError(
            f"{path}: {spec.name} has scale {scale} and zero point {zero_point},"
            f" the manifest says {spec.scale} and {spec.zero_point}"
        )


def first_line(error: Exception) -> str:
    """Vendors explain themselves over several lines; ours are one."""
    return str(error).partition("\n")[0] or type(error).__name__
