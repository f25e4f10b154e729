"""An accelerator that computes what it is told to, and can vanish like one on a USB cable."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from appliance.accelerator.contract import check_input
from appliance.errors import AcceleratorError
from appliance.types import ModelSpec, Tensor

Compute = Callable[[Tensor], tuple[Tensor, ...]]
"""The input, as spec.input says, to the outputs, as spec.outputs say."""


class SimulatedAccelerator:
    """Has input and output buffers of its own, as a device has, and overwrites them.

    Args:
        spec: of the pretended model.
        compute: what the pretended model does; called with the device's input buffer.

    Attributes:
        present: set it to False and the device has been unplugged.
        runs: completed so far.
    """

    def __init__(self, spec: ModelSpec, compute: Compute) -> None:
        self.present = True
        self.runs = 0
        self._spec, self._compute = spec, compute
        self._input: Tensor = np.zeros(spec.input.shape, spec.input.dtype)
        self._outputs: list[Tensor] = [np.zeros(o.shape, o.dtype) for o in spec.outputs]

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        check_input(self._spec, tensor)
        if not self.present:
            raise AcceleratorError(f"{self._spec.id}: the accelerator is gone")
        try:
            self._input[...] = tensor
            for buffer, output in zip(self._outputs, self._compute(self._input), strict=True):
                buffer[...] = output
            self.runs += 1
            return tuple(buffer.copy() for buffer in self._outputs)
        finally:
            for buffer in (self._input, *self._outputs):
                buffer.fill(0)

    def close(self) -> None:
        """Let go of the device; `run` is refused from then on."""
        self.present = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
