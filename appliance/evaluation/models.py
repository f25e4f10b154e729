"""The models that an evaluation or a bench runs, built as the node builds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.accelerator.manifest import Manifest, ModelFile
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.config import Detection, Models
from appliance.vision.detector import FaceDetector
from appliance.vision.embedder import FaceEmbedder

FOLDER = Path(__file__).resolve().parents[2] / "models_tflite"
"""Where this installation's models lie."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A detector and an embedder, and what their manifest says of them.

    Attributes:
        hidden_device, teller_device: what reads part-hidden faces and tells them apart; None if
            the folder has no such models.
    """

    detector: FaceDetector
    embedder: FaceEmbedder
    detector_file: ModelFile
    embedder_file: ModelFile
    min_score: float
    detector_device: TfliteAccelerator
    embedder_device: TfliteAccelerator
    hidden_device: TfliteAccelerator | None
    teller_device: TfliteAccelerator | None


@contextmanager
def load(
    *,
    folder: Path | None = None,
    detector: str | None = None,
    embedder: str | None = None,
    threads: int = 2,
    min_score: float | None = None,
) -> Iterator[Loaded]:
    """Load them; they are closed at the end of the `with`.

    Args:
        folder: holds manifest.toml; None is this installation's.
        detector: name in the manifest; None is the node's default.
        embedder: see detector.
        threads: CPU threads per model.
        min_score: least score of a face; None is the node's default.

    Raises:
        ModelError: missing, of a wrong hash, or not what the manifest says.
    """
    defaults, detection = Models(), Detection()
    manifest = Manifest.load(folder or FOLDER)
    detector_file = manifest.model(detector or defaults.detector)
    embedder_file = manifest.model(embedder or defaults.embedder)
    least = detection.min_score if min_score is None else min_score
    with ExitStack() as stack:

        def lend(name: str) -> TfliteAccelerator | None:
            if name not in {model.spec.name for model in manifest.models}:
                return None
            return stack.enter_context(TfliteAccelerator(manifest.model(name), threads=threads))

        finds = stack.enter_context(TfliteAccelerator(detector_file, threads=threads))
        tells = stack.enter_context(TfliteAccelerator(embedder_file, threads=threads))
        yield Loaded(
            detector=FaceDetector(
                finds,
                min_score=least,
                max_faces=detection.max_faces,
            ),
            embedder=FaceEmbedder(tells),
            detector_file=detector_file,
            embedder_file=embedder_file,
            min_score=least,
            detector_device=finds,
            embedder_device=tells,
            hidden_device=lend(defaults.hidden),
            teller_device=lend(defaults.occlusion),
        )
