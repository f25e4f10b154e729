"""The models that a configuration names, checked against their manifest and loaded."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from appliance.accelerator.choose import Accelerators
from appliance.accelerator.manifest import SHIPPED, Manifest, ModelFile
from appliance.config import Config
from appliance.vision.detector import FaceDetector
from appliance.vision.embedder import FaceEmbedder
from appliance.vision.occlusion import Teller


@dataclass(frozen=True, slots=True)
class Models:
    """Detector and embedder, ready to run; and for hidden faces an embedder and a classifier.

    Attributes:
        embedder_file: with the table of its false matches.
        hidden, hidden_file, teller: None where the configuration names none.
        accelerators: what runs them, and what has failed.
    """

    detector: FaceDetector
    embedder: FaceEmbedder
    embedder_file: ModelFile
    accelerators: Accelerators
    hidden: FaceEmbedder | None = None
    hidden_file: ModelFile | None = None
    teller: Teller | None = None


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
    accelerators = stack.enter_context(
        Accelerators(chosen.accelerator, threads=chosen.threads, forced=chosen.force)
    )
    detector = accelerators.open(manifest.model(chosen.detector))
    embedder = accelerators.open(embedder_file)
    hidden_file = manifest.model(chosen.hidden) if chosen.hidden else None
    return Models(
        detector=FaceDetector(
            detector, min_score=config.detection.min_score, max_faces=config.detection.max_faces
        ),
        embedder=FaceEmbedder(embedder),
        embedder_file=embedder_file,
        accelerators=accelerators,
        hidden=FaceEmbedder(accelerators.open(hidden_file)) if hidden_file else None,
        hidden_file=hidden_file,
        teller=(
            Teller(accelerators.open(manifest.model(chosen.occlusion)))
            if chosen.occlusion
            else None
        ),
    )
