"""Which models there are, and how each is made: source, algebra, calibration, words.

A recipe turns fetched files and stored numbers into the bytes of a .tflite file. Nothing is
written here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import algebra
import calibrate
import centerface
import hidden
import mobilefacenet
import numpy as np
import pictures
from graph import Graph
from runtime import Model
from tflite_file import Quantisation
from writer import Ranges, write

from appliance.evaluation.occluders import KINDS, hide
from appliance.types import Image
from appliance.vision.align import TEMPLATE
from appliance.vision.detector import FaceDetector
from appliance.vision.occlusion import fill
from appliance.vision.reader import COLUMNS

BUILD = Path(__file__).parent
FOLDER = BUILD.parent
SOURCES = BUILD / ".sources"
CALIBRATION = BUILD / "calibration"
PHOTOS = FOLDER.parent / "tests/photos"

WEIGHTS = FOLDER / "training/weights"

EMBEDDER = "mobilefacenet-112"
HIDDEN_EMBEDDER = "mobilefacenet-112-hidden"
CLASSIFIER = "occlusion-112"
DETECTOR_SIZES = ((192, 320), (320, 320), (384, 640), (736, 1280))
CALIBRATION_SIZE = (384, 640)
FACE_FINDER = (320, 320)
"""Of the detector that aligns faces for calibration and for measuring on portraits."""

_COLLAGES, _COLLAGE_SEED = 60, 1
_FACES, _FACE_SEED = 300, 2


@dataclass(frozen=True, slots=True)
class Network:
    """What all sizes of one network share.

    Attributes:
        key: also names its file of calibrated numbers.
        share: see calibrate.steps.
        pixel_mean, pixel_std: see ModelSpec.
        quantisation: of the input: one level per pixel value.
    """

    key: str
    role: str
    share: float
    pixel_mean: float
    pixel_std: float
    quantisation: Quantisation


CENTERFACE = Network("centerface", "detector", 0.5, 0.0, 1.0, Quantisation((1.0,), (-128,)))
MOBILEFACENET = Network(
    "mobilefacenet", "embedder", 1.0, 127.5, 128.0, Quantisation((1 / 128,), (-1,))
)
HIDDEN = replace(MOBILEFACENET, key="mobilefacenet-hidden")
OCCLUSION = replace(MOBILEFACENET, key="occlusion", role="occlusion")


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The numbers that make a float network an int8 one."""

    steps: dict[str, list[int]]
    ranges: Ranges


def base(network: Network) -> Graph:
    """The network in float, all exact algebra done but the equalising."""
    if network is CENTERFACE:
        return centerface.load(SOURCES / "centerface.onnx").at(CALIBRATION_SIZE)
    if network is OCCLUSION:
        return hidden.classifier(WEIGHTS / "occlusion.npz")
    bare = algebra.merge(algebra.flip(mobilefacenet.load(SOURCES)))
    if network is HIDDEN:
        # Slopes that training moved beyond 1 are flipped back.
        return algebra.flip(hidden.trained(bare, WEIGHTS / "hidden.npz"))
    return bare


def measured(
    network: Network, images: list[Image], known: Calibrated | None, within: float = 100.0
) -> Calibrated:
    """Calibrate on pictures of the network's calibration size.

    Args:
        network: CENTERFACE or MOBILEFACENET.
        images: (h, w, 3) uint8 each.
        known: keep its steps and measure the ranges only: a step is a rounded number, and one
            that another machine rounds the other way would move a whole range.
        within: see calibrate.ranges.
    """
    graph = base(network)
    tensors = [
        ((image - network.pixel_mean) / network.pixel_std)[None].astype(np.float32)
        for image in images
    ]
    if known is None:
        steps = calibrate.steps(graph, calibrate.reach(graph, tensors), network.share)
    else:
        steps = known.steps
    equalised = algebra.equalise(graph, calibrate.factors(steps))
    return Calibrated(steps, calibrate.ranges(calibrate.reach(equalised, tensors), within))


def stored(network: Network) -> Calibrated:
    """The calibration that the repository keeps."""
    document = json.loads((CALIBRATION / f"{network.key}.json").read_text())
    ranges = {name: (low, high) for name, (low, high) in document["ranges"].items()}
    return Calibrated(document["steps"], ranges)


def as_json(calibrated: Calibrated) -> str:
    """One line per tensor, so that a change shows where it is."""
    document: dict[str, Any] = {"steps": calibrated.steps, "ranges": dict(calibrated.ranges)}
    parts = []
    for key, entries in document.items():
        lines = [f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in entries.items()]
        parts.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def int8(network: Network, calibrated: Calibrated, size: tuple[int, int] | None = None) -> bytes:
    """The .tflite file.

    Args:
        network: CENTERFACE or MOBILEFACENET.
        calibrated: its numbers.
        size: (height, width), None for the one size that there is.
    """
    graph = algebra.equalise(base(network), calibrate.factors(calibrated.steps))
    if size is not None:
        graph = graph.at(size)
    return write(
        graph, network.key, ranges=calibrated.ranges, input_quantisation=network.quantisation
    )


def float32(
    network: Network, size: tuple[int, int] | None = None, *, plain_prelu: bool = False
) -> bytes:
    """The same network unquantised: for comparing, and for compilers that quantise themselves."""
    graph = base(network)
    graph = replace(graph, size=size or graph.size)
    return write(graph, network.key, plain_prelu=plain_prelu)


def detector_name(size: tuple[int, int]) -> str:
    """A detector's name in the manifest: width before height, as people say it."""
    return f"centerface-{size[1]}x{size[0]}"


def model(network: Network, content: bytes, threads: int = 1) -> Model:
    """Bytes as something that runs."""
    return Model(
        content,
        role=network.role,
        pixel_mean=network.pixel_mean,
        pixel_std=network.pixel_std,
        threads=threads,
    )


def collages(count: int = _COLLAGES, seed: int = _COLLAGE_SEED) -> list[Image]:
    """What the detector is calibrated on."""
    photos = pictures.photographs(PHOTOS)
    return list(pictures.collages(photos, CALIBRATION_SIZE, count, seed))


def faces(detector: bytes, count: int = _FACES, seed: int = _FACE_SEED) -> list[Image]:
    """What the embedder is calibrated on.

    Args:
        detector: the int8 detector of FACE_FINDER's size.
        count: how many.
        seed: of the generator.
    """
    finds = FaceDetector(model(CENTERFACE, detector), min_score=0.5, max_faces=1)
    photos = pictures.photographs(PHOTOS)
    return list(pictures.faces(photos, finds.detect, count, seed))


def part_hidden(network: Network, bare: list[Image]) -> list[Image]:
    """What OCCLUSION is calibrated on, and the goldens of both networks for hidden faces are of.

    Args:
        network: HIDDEN gets filled faces, OCCLUSION those in front of which things are drawn.
        bare: see faces().
    """
    found = []
    for number, face in enumerate(bare):
        if network is HIDDEN:
            face = face.copy()  # noqa: PLW2901 - the same face, filled
            fill(face, COLUMNS[number % len(COLUMNS)])
        elif number % 3:
            face = hide(face, TEMPLATE, KINDS[number % len(KINDS)], number)  # noqa: PLW2901
        found.append(face)
    return found
