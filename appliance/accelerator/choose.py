"""Which device runs the models: one `if` per name in the configuration.

"auto" looks for what is plugged in and compiled for, fastest first; a name insists on a device,
and still falls back to the CPU, loudly, because a node that sees slowly is better than a blind one.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Literal, Self

from appliance.accelerator import coral, hailo
from appliance.accelerator.fallback import CPU, Candidate, FallbackAccelerator
from appliance.accelerator.manifest import ModelFile
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.errors import AcceleratorError
from appliance.interfaces import Accelerator

log = logging.getLogger(__name__)

AcceleratorName = Literal["auto", "cpu", "coral", "hailo"]


class Accelerators:
    """Opens models on the device that was asked for; a Hailo is opened once for all of them.

    Args:
        wanted: what the configuration names.
        threads: of the CPU, per model.
        forced: use versions that are not known to fit.
    """

    def __init__(self, wanted: AcceleratorName, *, threads: int, forced: bool = False) -> None:
        self._wanted, self._threads, self._forced = wanted, threads, forced
        self._hailo: hailo.HailoDevice | None = None
        self._opened: list[FallbackAccelerator] = []

    def open(self, model: ModelFile) -> FallbackAccelerator:
        """The model on the fastest device that answers its stored inputs right.

        Raises:
            ModelError: the model cannot be used even on the CPU.
            AcceleratorError: no runtime for the CPU is installed.
        """
        accelerator = FallbackAccelerator(
            model, candidates=self._candidates(model), cpu=self._on_cpu
        )
        self._opened.append(accelerator)
        return accelerator

    @property
    def device(self) -> str:
        """What runs the models, for health messages: "cpu", "hailo", or "coral-cpu" for both."""
        return "-".join(sorted({accelerator.device for accelerator in self._opened})) or CPU

    @property
    def fallen(self) -> tuple[str, ...]:
        """Why devices are not used that should be; empty if all is as it should."""
        return tuple(a.fallen for a in self._opened if a.fallen is not None)

    def close(self) -> None:
        """Close every model, then the device that they shared."""
        for accelerator in reversed(self._opened):
            accelerator.close()
        self._opened.clear()
        if self._hailo is not None:
            self._hailo.close()
            self._hailo = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _candidates(self, model: ModelFile) -> list[Candidate]:
        """Fastest first. Unasked for, only what is there and compiled for."""
        candidates = {
            "hailo": (Candidate("hailo", self._on_hailo, _min_cosine_hailo), model.hailo),
            "coral": (Candidate("coral", self._on_coral, _min_cosine_coral), model.coral),
        }
        if self._wanted != "auto":
            return [
                candidate for candidate, _ in candidates.values() if candidate.name == self._wanted
            ]
        found = []
        for name in attached():
            candidate, file = candidates[name]
            if file is None:
                log.warning("a %s is plugged in, but %s has no file for it", name, model.spec.name)
            else:
                found.append(candidate)
        return found

    def _on_cpu(self, model: ModelFile) -> Accelerator:
        return TfliteAccelerator(model, threads=self._threads)

    def _on_coral(self, model: ModelFile) -> Accelerator:
        device = coral.attached()
        if device is None:
            raise AcceleratorError("no Coral is plugged in")
        return coral.open_coral(model, device=device, forced=self._forced)

    def _on_hailo(self, model: ModelFile) -> Accelerator:
        if self._hailo is None:
            self._hailo = hailo.HailoDevice(forced=self._forced)
        return hailo.HailoAccelerator(model, device=self._hailo)


def attached() -> tuple[str, ...]:
    """Accelerators that are plugged in, fastest first, whether or not they work."""
    seen = {"hailo": hailo.DEVICE.exists(), "coral": coral.attached() is not None}
    return tuple(name for name, there in seen.items() if there)


def _min_cosine_hailo(model: ModelFile) -> float:
    return (model.hailo or model.golden).min_cosine


def _min_cosine_coral(model: ModelFile) -> float:
    return (model.coral or model.golden).min_cosine
