"""A model that is only bytes so far, with the house's own types around it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from appliance.types import ModelSpec, Tensor, TensorSpec
from appliance.vision.quantise import dequantise


class Model:
    """An Accelerator (appliance/interfaces.py) over bytes, in int8 or float32.

    Args:
        content: a .tflite file.
        role: "detector" or "embedder".
        pixel_mean, pixel_std: see ModelSpec.
    """

    def __init__(
        self, content: bytes, *, role: str, pixel_mean: float, pixel_std: float, threads: int = 1
    ) -> None:
        self._interpreter: Any = Interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self.spec = ModelSpec(
            name=role,
            role=role,
            id=f"{role}@unnamed",
            sha256="",
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input=_spec(self._input),
            outputs=tuple(_spec(detail) for detail in self._outputs),
        )

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """See interfaces.Accelerator."""
        self._interpreter.set_tensor(self._input["index"], tensor)
        self._interpreter.invoke()
        return tuple(self._interpreter.get_tensor(detail["index"]) for detail in self._outputs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to let go of."""


class Unquantised:
    """A float32 network behind the input and outputs of its int8 twin, for comparing the two.

    Args:
        inside: float32.
        outside: the int8 twin's description.
    """

    def __init__(self, inside: Model, outside: ModelSpec) -> None:
        self._inside = inside
        self.spec = outside

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """See interfaces.Accelerator."""
        outputs = self._inside.run(dequantise(tensor, self.spec.input))
        return tuple(
            np.clip(np.rint(output / spec.scale + spec.zero_point), -128, 127).astype(np.int8)
            for output, spec in zip(outputs, self.spec.outputs, strict=True)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to let go of."""


def _spec(detail: dict[str, Any]) -> TensorSpec:
    scale, zero_point = detail["quantization"]
    return TensorSpec(
        name=detail["name"],
        shape=tuple(int(n) for n in detail["shape"]),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale),
        zero_point=int(zero_point),
    )
