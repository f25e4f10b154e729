"""The models that a configuration names, checked against their manifest and loaded."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from appliance.accelerator.manifest import Manifest, ModelFile
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.config import Config
from appliance.vision.detector import FaceDetector
from appliance.vision.embedder import FaceEmbedder

SHIPPED = Path(__file__).resolve().parents[2] / "models_tflite"
"""Beside the package, in a checkout as in an installation."""


@dataclass(frozen=True, slots=True)
class Models:
    """Detector and embedder, ready to run.

    Attributes:
        embedder_file: with the table of its false matches.
        accelerator: what runs them, such as "cpu".
    """

    detector: FaceDetector
    embedder: FaceEmbedder
    embedder_file: ModelFile
    accelerator: str


def open_models(config: Config, stack: ExitStack) -> Models:
    """Load the configured detector and embedder.

    Args:
        config: the node's.
        stack: closes them.

    Raises:
        ModelError: missing, another file than the manifest's, or of the wrong kind.
        AcceleratorError: nothing that can run them.
    """
    chosen = config.models
    manifest = Manifest.load(Path(chosen.folder) if chosen.folder else SHIPPED)
    embedder_file = manifest.model(chosen.embedder)
    detector = stack.enter_context(
        TfliteAccelerator(manifest.model(chosen.detector), threads=chosen.threads)
    )
    embedder = stack.enter_context(TfliteAccelerator(embedder_file, threads=chosen.threads))
    return Models(
        detector=FaceDetector(
            detector, min_score=config.detection.min_score, max_faces=config.detection.max_faces
        ),
        embedder=FaceEmbedder(embedder),
        embedder_file=embedder_file,
        accelerator="cpu",
    )
