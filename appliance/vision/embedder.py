"""An aligned face to a vector."""

from __future__ import annotations

import math

import numpy as np

from appliance.errors import AcceleratorError, ModelError
from appliance.interfaces import Accelerator
from appliance.types import Image, ModelSpec, Tensor, Vector
from appliance.vision.quantise import dequantise, quantise


class FaceEmbedder:
    """An embedder of the manifest on any accelerator. Used by one thread.

    The quantised crop and the raw output are overwritten before `embed` returns.

    Args:
        accelerator: runs a model that takes a square crop and gives one vector.

    Raises:
        ModelError: the model is no such one.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        _check(accelerator.spec)
        self._accelerator = accelerator
        self._tensor: Tensor = np.zeros(accelerator.spec.input.shape, accelerator.spec.input.dtype)

    @property
    def model_id(self) -> str:
        return self._accelerator.spec.id

    @property
    def dim(self) -> int:
        return self._accelerator.spec.outputs[0].shape[1]

    @property
    def side(self) -> int:
        return self._accelerator.spec.input.shape[1]

    def embed(self, crop: Image) -> Vector:
        """See interfaces.Embedder.

        Raises:
            AcceleratorError: the device failed, or gave a vector without a direction.
            ValueError: a crop of another shape.
        """
        spec = self._accelerator.spec
        if crop.shape != spec.input.shape[1:]:
            raise ValueError(f"a crop of shape {crop.shape}, must be {spec.input.shape[1:]}")
        try:
            quantise(crop, spec, out=self._tensor)
            (quantised,) = self._accelerator.run(self._tensor)
        finally:
            self._tensor.fill(0)
        vector = dequantise(quantised[0], spec.outputs[0])  # (dim,)
        quantised.fill(0)
        norm = math.sqrt(float(vector @ vector))
        if norm == 0.0:
            raise AcceleratorError(f"{spec.id}: gave a vector of zeros")
        vector /= norm
        return vector

    def forget(self) -> None:
        """See interfaces.Embedder. A runtime overwrites its inside only by its next run.

        Raises:
            AcceleratorError: the device failed.
        """
        (quantised,) = self._accelerator.run(self._tensor)  # zeros, see embed
        quantised.fill(0)


def _check(spec: ModelSpec) -> None:
    if spec.role != "embedder":
        raise ModelError(f"{spec.id}: is a {spec.role}, an embedder is needed")
    _, height, width, _ = spec.input.shape
    outputs = [output.shape for output in spec.outputs]
    if height != width or len(outputs) != 1 or len(outputs[0]) != 2 or outputs[0][0] != 1:  # noqa: PLR2004 - (1, dim)
        raise ModelError(
            f"{spec.id}: takes {width}x{height} and gives {outputs},"
            " an embedder takes a square and gives one vector"
        )
