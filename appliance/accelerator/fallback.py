"""A model on the fastest device that answers right, and on the CPU from the moment it does not.

Falling back is loud (one log line, `fallen`) and for good: a device that has failed once is not
tried again before the service starts anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from appliance.accelerator import golden
from appliance.accelerator.contract import check_input
from appliance.accelerator.manifest import ModelFile
from appliance.errors import AcceleratorError, ModelError
from appliance.interfaces import Accelerator
from appliance.types import ModelSpec, Tensor

log = logging.getLogger(__name__)

CPU = "cpu"
Opener = Callable[[ModelFile], Accelerator]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device to be tried.

    Attributes:
        name: for people and health messages.
        open: loads a model on it.
        min_cosine: what its answers to a model's stored inputs must reach.
    """

    name: str
    open: Opener
    min_cosine: Callable[[ModelFile], float]


class FallbackAccelerator:
    """Used by one thread, as every accelerator; `device` and `fallen` may be read by any.

    Args:
        model: the same on every device: spec and model id do not change with it.
        candidates: fastest first; each is held against the golden inputs before it is used.
        cpu: opens the model where it always works.

    Attributes:
        device: name of what runs the model now.
        fallen: why a candidate is not used any more, None while the first of them is.

    Raises:
        ModelError: the model cannot be used even on the CPU.
    """

    def __init__(self, model: ModelFile, *, candidates: Sequence[Candidate], cpu: Opener) -> None:
        self._model, self._cpu = model, cpu
        self.fallen: str | None = None
        self._closed = False
        self.device = CPU
        self._active = self._first_that_answers(candidates)

    @property
    def spec(self) -> ModelSpec:
        return self._model.spec

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        if self._closed:
            raise AcceleratorError(f"{self._model.spec.id}: the accelerator is closed")
        check_input(self._model.spec, tensor)  # the caller's mistake is no fault of the device's
        try:
            return self._active.run(tensor)
        except AcceleratorError as e:
            if self.device == CPU:
                raise
            self._fall(self.device, e)
            self._leave(self._active)
            self.device = CPU
            self._active = self._cpu(self._model)
        return self._active.run(tensor)

    def close(self) -> None:
        """Let go of the device; `run` is refused from then on."""
        self._closed = True
        self._leave(self._active)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _first_that_answers(self, candidates: Sequence[Candidate]) -> Accelerator:
        for candidate in candidates:
            try:
                accelerator = candidate.open(self._model)
            except (AcceleratorError, ModelError) as e:
                self._fall(candidate.name, e)
                continue
            try:
                cosine = golden.check(
                    self._model, accelerator, min_cosine=candidate.min_cosine(self._model)
                )
            except (AcceleratorError, ModelError) as e:
                self._leave(accelerator)
                self._fall(candidate.name, e)
                continue
            log.info("%s on %s: golden cosine %.4f", self._model.spec.id, candidate.name, cosine)
            self.device = candidate.name
            return accelerator
        return self._cpu(self._model)

    def _fall(self, name: str, error: Exception) -> None:
        self.fallen = f"{name}: {error}"
        log.error("%s is not used for %s: %s", name, self._model.spec.name, error)

    def _leave(self, accelerator: Accelerator) -> None:
        """Close a device that has failed, which may fail, too."""
        try:
            accelerator.__exit__(None, None, None)
        except AcceleratorError as e:
            log.warning("%s cannot be closed: %s", self.device, e)
