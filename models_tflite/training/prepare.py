"""Pictures to what training reads: wide aligned faces, the teacher's vectors, moved landmarks.

Enters: a data folder (see split.py). Leaves: in a folder of the user's, `faces.npy`
(n, 144, 144, 3) uint8, `teacher.npy` (n, dim) float32, `moves.npz`, `index.csv`. Only subjects of
the training part are read. It takes minutes once; training takes them from there.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import cv2
import disguise
import numpy as np
import numpy.typing as npt
from split import Picture, pictures

from appliance.accelerator.manifest import Manifest
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.types import Face, Image, Points
from appliance.vision.align import TEMPLATE, TEMPLATE_SIDE, similarity
from appliance.vision.detector import FaceDetector
from appliance.vision.occlusion import PARTS, Part

MARGIN = 16
"""Pixels around the aligned face, so that moving it brings in no border."""

DETECTOR = "centerface-320x320"
TEACHER = "mobilefacenet-112"
_MOVED_PICTURES = 400
"""Pictures per part on which the movement of landmarks is observed."""

_SEED = 5
_NEAR_CENTRE_PX = 45.0


class Finder:
    """The node's own detector on one picture: the face nearest to the centre."""

    def __init__(self, models: Path) -> None:
        model = Manifest.load(models).model(DETECTOR)
        self._detector = FaceDetector(
            TfliteAccelerator(model, threads=1), min_score=0.35, max_faces=20
        )

    def find(self, image: Image) -> Face | None:
        """None if there is none near the centre."""
        centre = np.array([image.shape[1], image.shape[0]]) / 2
        found = [
            (float(np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - centre)), face)
            for face in self._detector.detect(image)
        ]
        distance, face = min(found, key=lambda pair: pair[0], default=(np.inf, None))
        return face if distance < _NEAR_CENTRE_PX else None


def read(path: Path) -> Image:
    """A picture in RGB.

    Raises:
        FileNotFoundError: missing, or no picture.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f"{path}: missing or not a picture")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def prepare(data: Path, models: Path, out: Path) -> None:
    """Do all of it, unless `out` has it."""
    if (out / "index.csv").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    finder = Finder(models)
    chosen = [picture for picture in pictures(data) if picture.trained_on]
    found: list[tuple[Picture, Points]] = []
    side = TEMPLATE_SIDE + 2 * MARGIN
    faces = np.zeros((len(chosen), side, side, 3), np.uint8)
    for number, picture in enumerate(chosen):
        image = read(data / "images" / picture.path)
        face = finder.find(image)
        if face is not None:
            faces[len(found)] = wide(image, face.landmarks)
            found.append((picture, face.landmarks))
        if number % 500 == 0:
            print(f"faces: {number} of {len(chosen)}", flush=True)
    np.save(out / "faces.npy", faces[: len(found)])
    np.savez(out / "moves.npz", **_moves(data, finder, found))
    with (out / "index.csv.part").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows((p.subject, p.path) for p, _ in found)
    (out / "index.csv.part").replace(out / "index.csv")
    print(f"faces: {len(found)} of {len(chosen)} pictures", flush=True)


def wide(image: Image, landmarks: Points) -> Image:
    """An aligned face with MARGIN around it."""
    side = TEMPLATE_SIDE + 2 * MARGIN
    matrix = similarity(landmarks, TEMPLATE)
    matrix[:, 2] += MARGIN
    return np.asarray(
        cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_REPLICATE),
        np.uint8,
    )  # fmt: skip


def _moves(
    data: Path, finder: Finder, found: list[tuple[Picture, Points]]
) -> dict[Part, npt.NDArray[np.float64]]:
    """How hiding a part moves the alignment: similarities of the template onto itself.

    (n, 2, 3) for each part: from where a point lies by the bare landmarks to where it lies by
    those found on the hidden picture.
    """
    rng = np.random.default_rng(_SEED)
    moves: dict[Part, npt.NDArray[np.float64]] = {}
    for part in PARTS:
        seen = []
        for index in rng.permutation(len(found))[:_MOVED_PICTURES]:
            picture, landmarks = found[index]
            image = read(data / "images" / picture.path)
            bare = similarity(landmarks, TEMPLATE)
            disguise.draw(image, cv2.invertAffineTransform(bare), part, rng)
            face = finder.find(image)
            if face is not None:
                hidden = similarity(face.landmarks, TEMPLATE)
                seen.append(_compose(hidden, cv2.invertAffineTransform(bare)))
        moves[part] = np.array(seen)
        shift = np.abs(moves[part] @ [56.0, 52.0, 1.0] - [56.0, 52.0]).mean(axis=0)
        print(f"{part}: found {len(seen)}, eyes moved by {shift.round(2)} px", flush=True)
    return moves


def _compose(
    after: npt.NDArray[np.float64], before: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The affine map that does `before`, then `after`."""
    full = np.vstack([before, [0.0, 0.0, 1.0]])
    return np.asarray(after @ full, np.float64)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
