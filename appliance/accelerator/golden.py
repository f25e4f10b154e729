"""Whether a device answers a model's stored inputs with the stored outputs.

A device that computes something else is worse than none: it would match strangers to the list.
"""

from __future__ import annotations

import io
import zipfile
from itertools import islice
from typing import Any

import numpy as np

from appliance.accelerator.manifest import ModelFile
from appliance.errors import AcceleratorError, ModelError
from appliance.interfaces import Accelerator
from appliance.types import Tensor

INPUTS = 4
"""Of those stored, at a service's start: each costs one run."""


def check(
    model: ModelFile, accelerator: Accelerator, *, min_cosine: float, inputs: int = INPUTS
) -> float:
    """Compare.

    Args:
        model: whose golden file is read.
        accelerator: with that model loaded.
        min_cosine: between every stored output and the device's, at least.
        inputs: how many of those stored, the first ones.

    Returns:
        The least cosine found.

    Raises:
        AcceleratorError: the device answers otherwise; or it failed.
        ModelError: the golden file is not the one that the manifest names.
    """
    worst = 1.0
    for number, (tensor, stored, where) in enumerate(islice(_stored(model), inputs)):
        for spec, ours, theirs in zip(
            model.spec.outputs, accelerator.run(tensor), stored, strict=True
        ):
            found = _cosine(ours[0][where], theirs[where], spec.zero_point)
            worst = min(worst, found)
            if found < min_cosine:
                raise AcceleratorError(
                    f"{model.spec.id}: stored input {number} gives {spec.name} at cosine"
                    f" {found:.4f} to the stored output, at least {min_cosine} is asked"
                )
    return worst


def _stored(model: ModelFile) -> list[tuple[Tensor, tuple[Tensor, ...], Any]]:
    """Inputs with a batch of one, their outputs in spec.outputs' order, and where these count.

    Between its faces a detector's maps hold noise, of which right devices may have their own.
    """
    content = model.golden.verify()
    try:
        with np.load(io.BytesIO(content)) as arrays:
            inputs: Tensor = arrays["input"]  # (n, height, width, 3)
            outputs = [arrays[f"output_{n}"] for n in range(len(model.spec.outputs))]  # (n, ...)
            cells = arrays["cells"] if "cells" in arrays else [...] * len(inputs)  # (n, h, w)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise ModelError(f"{model.golden.path}: holds no stored inputs and outputs: {e}") from e
    return [
        (inputs[n : n + 1], tuple(output[n] for output in outputs), cells[n])
        for n in range(len(inputs))
    ]


def _cosine(a: Tensor, b: Tensor, zero_point: int) -> float:
    """Of the real values; their common scale cancels. Two zero vectors agree."""
    x, y = (t.astype(np.float64).ravel() - zero_point for t in (a, b))
    if x.shape != y.shape:
        return -1.0
    norms = float(np.sqrt((x @ x) * (y @ y)))
    if norms == 0.0:
        return 1.0 if not (x.any() or y.any()) else -1.0
    return float(x @ y) / norms
