"""Templates of the photographs in tests/photos, by the models that ship."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from pathlib import Path

import numpy as np

from appliance.accelerator.manifest import SHIPPED, Manifest
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.controller.enrolment import Enroller, Photo
from appliance.types import Vector
from appliance.vision.detector import FaceDetector
from appliance.vision.embedder import FaceEmbedder
from appliance.vision.quality import QualityGate

PHOTOS = Path(__file__).resolve().parents[1] / "photos"
EMBEDDER, DETECTOR = "mobilefacenet-112", "centerface-640x384"
HIDDEN_EMBEDDER = "mobilefacenet-112-hidden"


def model_id(name: str = EMBEDDER) -> str:
    """Of an embedder."""
    return Manifest.load(SHIPPED).model(name).spec.id


@cache
def template(photo: str) -> Vector:
    """Of one photograph."""
    manifest = Manifest.load(SHIPPED)
    with ExitStack() as stack:
        detector = stack.enter_context(TfliteAccelerator(manifest.model(DETECTOR), threads=2))
        embedder = stack.enter_context(TfliteAccelerator(manifest.model(EMBEDDER), threads=2))
        enroller = Enroller(
            detector=FaceDetector(detector, min_score=0.5, max_faces=8),
            embedder=FaceEmbedder(embedder),
            gate=QualityGate(),
        )
        return np.array(enroller.enrol(Photo("anybody", PHOTOS / photo)).vectors["whole"])
