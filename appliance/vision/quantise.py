"""Pixels to a model's input and a model's output to numbers.

Source: Jacob et al., arXiv:1712.05877, eq. 1: real = scale * (quantised - zero_point).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from appliance.types import Image, ModelSpec, Tensor, TensorSpec

_LEVELS = 256
_SIGN_BIT = 0x80

Table = npt.NDArray[np.uint8]
"""(256,) uint8: for each pixel value the quantised input, its bits read as unsigned."""


@lru_cache(maxsize=16)
def table(mean: float, std: float, spec: TensorSpec) -> Table:
    """The quantised input of each of the 256 pixel values.

    Halves are rounded up, always: rounding them to even would merge neighbouring pixel values
    where scale * std is 1 and the mean is a half, which is how our embedder is made.

    Args:
        mean: real input = (pixel - mean) / std.
        std: see mean.
        spec: of the input tensor, int8 or uint8.
    """
    limits = np.iinfo(spec.dtype)
    exact = (np.arange(_LEVELS) - mean) / std / spec.scale + spec.zero_point
    # A scale that was rounded to float32 may leave a half a trace below itself.
    levels = np.clip(np.floor(exact + 0.5 + 1e-4), limits.min, limits.max)
    quantised: Table = levels.astype(spec.dtype).view(np.uint8)
    quantised.setflags(write=False)
    return quantised


@lru_cache(maxsize=16)
def _flips_sign_only(mean: float, std: float, spec: TensorSpec) -> bool:
    """True if quantising is `pixel - 128`, which is one XOR: five times as fast as a table."""
    return bool(np.all(table(mean, std, spec) == np.arange(_LEVELS) ^ _SIGN_BIT))


def quantise(pixels: Image, model: ModelSpec, out: Tensor) -> None:
    """Write pixels into a model's input tensor.

    Args:
        pixels: (height, width, 3) uint8.
        model: says what its input means.
        out: (1, height, width, 3) of model.input.dtype, C-contiguous, overwritten.
    """
    unsigned = out[0].view(np.uint8)
    key = (model.pixel_mean, model.pixel_std, model.input)
    if _flips_sign_only(*key):
        np.bitwise_xor(pixels, _SIGN_BIT, out=unsigned)
    else:
        cv2.LUT(pixels, table(*key), dst=unsigned)


def dequantise(quantised: npt.NDArray[Any], spec: TensorSpec) -> npt.NDArray[np.float32]:
    """Real values of a quantised tensor, or of any part of one.

    Args:
        quantised: any shape, int8 or uint8.
        spec: of the tensor.

    Returns:
        The same shape, float32.
    """
    real = quantised.astype(np.float32)
    real -= spec.zero_point
    real *= np.float32(spec.scale)
    return real
