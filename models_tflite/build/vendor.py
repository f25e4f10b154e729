"""What Hailo's compiler is given: float32 graphs, real inputs to quantise on, and model scripts.

Enters: a folder to write to. The compiler itself is not public and has not been run here; its
commands are in README.md. (The Edge TPU's compiler takes the int8 files as they are.)

A HEF's real inputs must be the model's own, see appliance/accelerator/hailo.py: the pictures are
normalised here, and nothing on the chip.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import recipes
from recipes import CENTERFACE, MOBILEFACENET, Network

from appliance.types import Image

_DETECTOR_SIZE = (384, 640)
_SCRIPT = "model_optimization_flavor(optimization_level=1, compression_level=0)\n"
"""Named, because the default depends on whether the compiling machine has a GPU."""


def write(folder: Path) -> None:
    """Three files per model: .float.tflite, .calibration.npy (n, h, w, 3) float32, .alls."""
    folder.mkdir(parents=True, exist_ok=True)
    detector = recipes.float32(CENTERFACE, _DETECTOR_SIZE)
    _three(folder, recipes.detector_name(_DETECTOR_SIZE), detector, recipes.collages(), CENTERFACE)
    finder = recipes.int8(CENTERFACE, recipes.stored(CENTERFACE), recipes.FACE_FINDER)
    # Its compiler knows PReLU itself; the product and sum that int8 on a CPU wants would hide it.
    embedder = recipes.float32(MOBILEFACENET, plain_prelu=True)
    _three(folder, recipes.EMBEDDER, embedder, recipes.faces(finder), MOBILEFACENET)


def _three(folder: Path, name: str, content: bytes, images: list[Image], network: Network) -> None:
    inputs = (np.stack(images) - network.pixel_mean) / network.pixel_std
    (folder / f"{name}.float.tflite").write_bytes(content)
    np.save(folder / f"{name}.calibration.npy", inputs.astype(np.float32))
    (folder / f"{name}.alls").write_text(_SCRIPT)
    print(f"  {folder / name}.{{float.tflite,calibration.npy,alls}}")
