"""Stored inputs and answers of a model: what another device, runtime or version must reproduce.

Enters: a model's bytes. Leaves: the bytes of an npz, always the same for the same arrays.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pictures
from runtime import Model

from appliance.types import Image, Tensor
from appliance.vision.letterbox import Letterbox
from appliance.vision.quantise import dequantise, quantise

_EPOCH = (1980, 1, 1, 0, 0, 0)
_FACE = 0.2
"""Of the heat map, from which a cell belongs to a face: the others' values mean nothing."""

_SCENES = (("obama3", "astronaut"), ("grace_hopper", "biden"), ("obama", "obama2"))


def portraits(photos: Mapping[str, Image], size: tuple[int, int], count: int) -> list[Image]:
    """Two photographs side by side on black, each a half to all of the height.

    Mostly black, so that they compress.

    Args:
        photos: by the names of pictures.PHOTOS.
        size: (height, width).
        count: at most three.
    """
    height, width = size
    scenes = []
    for number, names in enumerate(_SCENES[:count]):
        canvas = np.zeros((height, width, 3), np.uint8)
        for place, name in enumerate(names):
            cell = (min(width // 2, 320), min(height, 384) * (2 + number) // 4)
            fitted = Letterbox(source=photos[name].shape[1::-1], target=cell).fit(photos[name])
            left = place * width // 2
            canvas[height - cell[1] :, left : left + cell[0]] = fitted
        scenes.append(canvas)
    return scenes


def golden(model: Model, images: list[Image]) -> bytes:
    """An npz with `input` and `output_0` … of these pictures.

    Args:
        model: int8.
        images: of the model's size.
    """
    inputs, outputs = [], []
    for image in images:
        tensor: Tensor = np.zeros(model.spec.input.shape, model.spec.input.dtype)
        quantise(image, model.spec, out=tensor)
        inputs.append(tensor[0])
        outputs.append([output[0] for output in model.run(tensor)])
    arrays = {"input": np.stack(inputs)}
    for place, answers in enumerate(zip(*outputs, strict=True)):
        arrays[f"output_{place}"] = np.stack(answers)
    if model.spec.role == "detector":
        heat = dequantise(arrays["output_0"], model.spec.outputs[0])[..., 0]  # (n, rows, columns)
        arrays["cells"] = heat >= _FACE
    return _npz(arrays)


def agreement(model: Model, content: bytes) -> float:
    """The least cosine between a stored answer and the model's, over inputs and outputs."""
    least = 1.0
    with np.load(io.BytesIO(content)) as stored:
        cells = stored["cells"] if "cells" in stored else [...] * len(stored["input"])
        for index, tensor in enumerate(stored["input"]):
            answers = model.run(tensor[None])
            for place, (answer, spec) in enumerate(zip(answers, model.spec.outputs, strict=True)):
                kept = stored[f"output_{place}"][index][cells[index]]
                ours = answer[0][cells[index]]
                least = min(least, _cosine(ours, kept, spec.zero_point))
    return least


def stored_faces(faces: list[Image]) -> list[Image]:
    """Ten of the calibration faces."""
    return faces[: len(pictures.PHOTOS) + 2]


def _cosine(a: npt.NDArray[Any], b: npt.NDArray[Any], zero_point: int) -> float:
    x, y = (t.astype(np.float64).ravel() - zero_point for t in (a, b))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """As numpy.savez_compressed, but without the time of day in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())
    return out.getvalue()
