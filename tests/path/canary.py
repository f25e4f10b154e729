"""What a stranger's face leaves in memory: needles made from it, and a look into a process.

The needles are what the node itself makes of the frame, computed here by the same code: the frame,
the frame at the detector's size, both quantised, the aligned crop, its quantised form, and the
vector in every form that it has on its way. Each is long and noisy enough to be nowhere by chance.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from appliance.accelerator.manifest import SHIPPED, Manifest
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.evaluation.occluders import hide
from appliance.tracking.evidence import Evidence
from appliance.types import Image
from appliance.vision.align import align
from appliance.vision.detector import FaceDetector
from appliance.vision.embedder import FaceEmbedder
from appliance.vision.letterbox import Letterbox
from appliance.vision.occlusion import fill
from appliance.vision.quantise import dequantise, quantise
from appliance.vision.reader import joined
from tests.path.enrolled import DETECTOR, EMBEDDER, HIDDEN_EMBEDDER, PHOTOS

SIZE = (960, 540)
PAGE = os.sysconf("SC_PAGE_SIZE")
NEEDLE_BYTES = 48
ROWS = 4
_NOISE = 20


def frame_of_a_stranger(*, masked: bool = False) -> Image:
    """(540, 960, 3) uint8: a photographed face with noise on it that no other picture has."""
    photo = cv2.imread(str(PHOTOS / "astronaut.jpg"), cv2.IMREAD_COLOR_RGB)
    assert photo is not None
    frame = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    frame[14:526, 200:712] = cv2.resize(photo, (512, 512))
    if masked:
        with TfliteAccelerator(Manifest.load(SHIPPED).model(DETECTOR), threads=2) as detector:
            (face,) = FaceDetector(detector, min_score=0.5, max_faces=8).detect(frame)
        frame = hide(frame, face.landmarks, "mask", 1)
    noise = np.random.default_rng(20261125).integers(-_NOISE, _NOISE + 1, frame.shape)
    return np.asarray(np.clip(frame.astype(np.int16) + noise, 1, 254), np.uint8)


@dataclass(frozen=True)
class Needles:
    """Byte strings by the form of the face that they are taken from."""

    forms: dict[str, tuple[bytes, ...]]

    def found_in(self, haystacks: list[bytes], *forms: str) -> set[str]:
        """Which forms are there, of these or of all."""
        return {
            form
            for form, needles in self.forms.items()
            if form in (forms or self.forms)
            and any(needle in hay for needle in needles for hay in haystacks)
        }


def needles_of(frame: Image, *, masked: bool = False) -> Needles:
    """What the node makes of its one face."""
    manifest = Manifest.load(SHIPPED)
    with ExitStack() as stack:
        detector = stack.enter_context(TfliteAccelerator(manifest.model(DETECTOR), threads=2))
        bare = stack.enter_context(TfliteAccelerator(manifest.model(EMBEDDER), threads=2))
        name = HIDDEN_EMBEDDER if masked else EMBEDDER
        embedder = stack.enter_context(TfliteAccelerator(manifest.model(name), threads=2))
        (face,) = FaceDetector(detector, min_score=0.5, max_faces=8).detect(frame)
        _, height, width, _ = detector.spec.input.shape
        letterbox = Letterbox(source=SIZE, target=(width, height))
        fitted = letterbox.fit(frame).copy()
        tensor = np.zeros(detector.spec.input.shape, detector.spec.input.dtype)
        quantise(fitted, detector.spec, out=tensor)
        crop = align(frame, face.landmarks)
        whole = FaceEmbedder(bare).embed(crop)
        if masked:
            fill(crop, "lower")
        small = np.zeros(embedder.spec.input.shape, embedder.spec.input.dtype)
        quantise(crop, embedder.spec, out=small)
        (raw,) = embedder.run(small)
        vector = FaceEmbedder(embedder).embed(crop)
        probe = joined(whole, vector, "lower") if masked else vector
        evidence = Evidence(vector.size, 5)
        for _ in range(5):
            evidence.add(probe)
        x1, y1, x2, y2 = (int(edge) for edge in face.box)
        scale = width / SIZE[0]
        inside = (slice(y1, y2), slice(x1, x2))
        fitted_face = (
            slice(round(y1 * scale) + 20, round(y2 * scale)),
            slice(round(x1 * scale), round(x2 * scale)),
        )
        rows = slice(20, 60) if masked else slice(30, 90)  # of a filled crop what is open
        forms = {
            "frame": _rows(frame[inside]),
            "frame at the detector's size": _rows(fitted[fitted_face]),
            "frame, quantised": _rows(tensor[0][fitted_face]),
            "crop": _rows(crop[rows, 30:90]),
            "crop, quantised": _rows(small[0, rows, 30:90]),
            "vector, as the model gave it": _chunks(raw),
            "vector, not yet of norm 1": _chunks(dequantise(raw[0], embedder.spec.outputs[0])),
            "vector": _chunks(probe),
            "vector of the whole face": _chunks(whole),
            "vector of what is open": _chunks(vector),
            "fused vector": _chunks(evidence.fuse()),
        }
    return Needles(forms)


def _rows(region: np.ndarray) -> tuple[bytes, ...]:
    """The middle of some rows."""
    places = np.linspace(2, len(region) - 3, ROWS).astype(int)
    return tuple(np.ascontiguousarray(region[y]).tobytes()[3 : 3 + NEEDLE_BYTES] for y in places)


def _chunks(vector: np.ndarray) -> tuple[bytes, ...]:
    """Pieces of a vector."""
    content = np.ascontiguousarray(vector).tobytes()
    return tuple(content[n : n + NEEDLE_BYTES] for n in range(0, len(content) - NEEDLE_BYTES, 192))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process stands still: what is read is of one moment."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def memory_of(pid: int) -> list[bytes]:
    """All that the process may have written in memory, run of pages by run of pages.

    What it cannot write to, program text and mapped files, comes from disk and not from a camera.
    Pages that were never touched hold nothing and are passed over (pagemap, bits 62 and 63:
    Documentation/admin-guide/mm/pagemap.rst).
    """
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    contents: list[bytes] = []
    with (
        Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory,
        Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap,
    ):
        for line in maps:
            span, access, *_ = line.split(maxsplit=2)
            if not access.startswith("rw"):
                continue
            first, end = (int(edge, 16) // PAGE for edge in span.split("-"))
            pagemap.seek(first * 8)
            entries = np.frombuffer(pagemap.read((end - first) * 8), np.uint64)
            touched = np.concatenate([[0], (entries >> np.uint64(62)) != 0, [0]]).astype(np.int8)
            edges = np.flatnonzero(np.diff(touched)).reshape(-1, 2)
            for begin, stop in (edges + first).tolist():
                try:
                    memory.seek(begin * PAGE)
                    contents.append(memory.read((stop - begin) * PAGE))
                except OSError:  # secret memory: not even root can read it this way
                    continue
    return contents
