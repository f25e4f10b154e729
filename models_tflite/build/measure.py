"""How good the models are, on data that the repository does not hold: lfw-dev.

    python models_tflite/build/measure.py DATA

Enters: a folder with open_set.csv and images/. Leaves: measured/report.md, the tables that the
model cards quote. The table of false matches is appliance/evaluation/calibrate.py's to make.

1. Open-set identification, float32 beside int8, and int8 calibrated on DATA, not on tests/photos.
2. Small faces: pasted into cluttered pictures of 1280x720, how many are found at which width.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import recipes
from recipes import CENTERFACE, MOBILEFACENET
from runtime import Model, Unquantised

from appliance.evaluation.extract import central
from appliance.evaluation.identification import Bootstrap, Trials
from appliance.types import Image, Vectors
from appliance.vision.align import align
from appliance.vision.detector import FaceDetector
from appliance.vision.quantise import dequantise, quantise

_MIN_SCORE = 0.5
_UNUSED_FACES = 300
_SCENES, _SCENE_SIZE = 60, (720, 1280)
_WIDTHS_PX = (20, 24, 32, 40, 56, 80)
_SAME = 0.4
"""Intersection over union from which a find is the face that was pasted."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One picture of the protocol; `crop` is None where no face was found."""

    role: str
    subject: str
    crop: Image | None


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture with faces whose places are known.

    Attributes:
        boxes: (4,) float32 pixels each: x1 y1 x2 y2.
        widths: of the faces, of _WIDTHS_PX.
    """

    picture: Image
    boxes: list[npt.NDArray[np.float32]]
    widths: list[int]


def main(folder: Path) -> int:
    """Measure and write the report."""
    lines: list[str] = []
    rows = list(_rows(folder))
    lost = sum(row.crop is None for row in rows)
    lines += [f"{len(rows)} pictures, aligned by CenterFace int8 320x320; no face on {lost}.", ""]
    lines += list(_identification(rows, _unused(folder)))
    lines += ["", *_small_faces(folder)]
    report = recipes.BUILD / "measured/report.md"
    report.parent.mkdir(exist_ok=True)
    report.write_text("\n".join(lines) + "\n")
    print(report.read_text())
    return 0


@lru_cache(maxsize=1)
def _finder() -> FaceDetector:
    size = recipes.FACE_FINDER
    content = recipes.int8(CENTERFACE, recipes.stored(CENTERFACE), size)
    return FaceDetector(recipes.model(CENTERFACE, content), min_score=_MIN_SCORE, max_faces=8)


def _rows(folder: Path) -> Iterator[Row]:
    finder = _finder()
    with (folder / "open_set.csv").open(newline="") as file:
        for entry in csv.DictReader(file):
            crop = _crop(finder, folder / entry["image"])
            yield Row(entry["role"], entry["subject"], crop)


def _unused(folder: Path) -> list[Image]:
    """Aligned faces of pictures that are in no role, to calibrate on."""
    with (folder / "open_set.csv").open(newline="") as file:
        used = {Path(entry["image"]).name for entry in csv.DictReader(file)}
    free = [path for path in sorted((folder / "images").glob("*/*.jpg")) if path.name not in used]
    chosen = np.random.default_rng(0).permutation(len(free))[:_UNUSED_FACES]
    finder = _finder()
    crops = [_crop(finder, free[index]) for index in chosen]
    return [crop for crop in crops if crop is not None]


def _crop(finder: FaceDetector, path: Path) -> Image | None:
    picture = _read(path)
    faces = finder.detect(picture)
    return align(picture, central(faces, picture).landmarks) if faces else None


def _read(path: Path) -> Image:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise FileNotFoundError(path)
    return np.asarray(picture, np.uint8)


def _identification(rows: list[Row], unused: list[Image]) -> Iterator[str]:
    """A table of TPIR at three FPIRs, with intervals over people."""
    network = MOBILEFACENET
    forms = {
        "float32": recipes.float32(network),
        "int8, as committed": recipes.int8(network, recipes.stored(network)),
        "int8, calibrated on DATA": recipes.int8(network, recipes.measured(network, unused, None)),
    }
    yield "| embedder | TPIR at FPIR 1 % | at 0.3 % | rank 1 | cosine to float32, mean / 1st pct |"
    yield "|---|---|---|---|---|"
    reference: Vectors | None = None
    for name, content in forms.items():
        vectors = _embed(recipes.model(network, content), rows)
        reference = vectors if reference is None else reference
        there = ~np.isnan(vectors[:, 0])
        alike = (vectors[there] * reference[there]).sum(axis=1)
        trials, rank = _trials(rows, vectors)
        bootstrap = Bootstrap(trials, seed=1)
        cells = []
        for fpir in (0.01, 0.003):
            tpir = bootstrap.at_fpir(fpir).tpir
            cells.append(f"{tpir.value:.1%} [{tpir.low:.1%}, {tpir.high:.1%}]")
        yield (
            f"| {name} | {' | '.join(cells)} | {rank:.1%}"
            f" | {alike.mean():.4f} / {np.percentile(alike, 1):.4f} |"
        )


def _embed(model: Model, rows: list[Row]) -> Vectors:
    """(n, dim), rows of norm 1; NaN where there is no crop."""
    (output,) = model.spec.outputs
    vectors = np.full((len(rows), output.shape[1]), np.nan, np.float32)
    tensor = np.zeros(model.spec.input.shape, model.spec.input.dtype)
    for index, row in enumerate(rows):
        if row.crop is None:
            continue
        if model.spec.input.dtype == "int8":
            quantise(row.crop, model.spec, out=tensor)
            vector = dequantise(model.run(tensor)[0][0], output)
        else:
            tensor[0] = (row.crop - model.spec.pixel_mean) / model.spec.pixel_std
            vector = model.run(tensor)[0][0]
        vectors[index] = vector / np.linalg.norm(vector)
    return vectors


def _trials(rows: list[Row], vectors: Vectors) -> tuple[Trials, float]:
    """Scores as identification.Trials wants them, and the rate of rank 1."""
    roles = np.array([row.role for row in rows])
    people = np.unique([row.subject for row in rows], return_inverse=True)[1]
    gallery, mated, other = (np.flatnonzero(roles == r) for r in ("gallery", "mated", "nonmated"))
    listed = np.nan_to_num(vectors[gallery])  # a subject without a template is nobody's nearest
    scores = vectors[mated] @ listed.T
    there = ~np.isnan(scores[:, 0])
    nearest = np.where(there, np.nan_to_num(scores).argmax(axis=1), -1)
    right = there & (people[gallery][nearest] == people[mated])
    best = np.where(right, np.nan_to_num(scores).max(axis=1), -np.inf)
    strangers = (vectors[other] @ listed.T).max(axis=1)
    trials = Trials(
        mated=best.astype(np.float32),
        mated_subject=people[mated],
        nonmated=np.where(np.isnan(strangers), -np.inf, strangers).astype(np.float32),
        nonmated_subject=people[other],
    )
    return trials, float(right.mean())


def _small_faces(folder: Path) -> Iterator[str]:
    """A table of recall by width for each detector."""
    scenes = [_scene(folder, np.random.default_rng(seed)) for seed in range(_SCENES)]
    empty = [_clutter(np.random.default_rng(_SCENES + seed)) for seed in range(_SCENES)]
    yield (
        f"{_SCENES} cluttered pictures of 1280x720 with faces pasted in, {_SCENES} without;"
        f" found: score {_MIN_SCORE} or more, overlap {_SAME} or more."
    )
    yield ""
    yield f"| detector | {' | '.join(f'{w} px' for w in _WIDTHS_PX)} | false finds per picture |"
    yield "|---" * (len(_WIDTHS_PX) + 2) + "|"
    for name, finds in _detectors():
        tally = {width: [0, 0] for width in _WIDTHS_PX}
        for scene in scenes:
            boxes = [face.box for face in finds.detect(scene.picture)]
            for box, width in zip(scene.boxes, scene.widths, strict=True):
                tally[width][0] += any(_overlap(box, other) >= _SAME for other in boxes)
                tally[width][1] += 1
        false = sum(len(finds.detect(picture)) for picture in empty) / len(empty)
        cells = " | ".join(f"{hits / faces:.2f}" for hits, faces in tally.values())
        yield f"| {name} | {cells} | {false:.2f} |"


def _detectors() -> Iterator[tuple[str, FaceDetector]]:
    """Every int8 detector, and the float32 one of one size."""
    for size in recipes.DETECTOR_SIZES:
        name = recipes.detector_name(size)
        content = recipes.int8(CENTERFACE, recipes.stored(CENTERFACE), size)
        model = recipes.model(CENTERFACE, content, threads=2)
        yield f"{name} int8", FaceDetector(model, min_score=_MIN_SCORE, max_faces=64)
        if size == recipes.CALIBRATION_SIZE:
            inside = recipes.model(CENTERFACE, recipes.float32(CENTERFACE, size), threads=2)
            plain = Unquantised(inside, model.spec)
            yield f"{name} float32", FaceDetector(plain, min_score=_MIN_SCORE, max_faces=64)


def _scene(folder: Path, rng: np.random.Generator) -> Scene:
    """Two faces of each width, each in a cell of its own of a 4 by 3 grid."""
    picture = _clutter(rng)
    finder = _finder()
    paths = sorted((folder / "images").glob("*/*_0001.jpg"))
    cells = [(row, column) for row in range(3) for column in range(4)]
    order = rng.permutation(len(cells))
    boxes, widths = [], []
    for number, width in enumerate(2 * _WIDTHS_PX):
        source = _read(paths[int(rng.integers(len(paths)))])
        faces = finder.detect(source)
        if not faces:
            continue
        box = central(faces, source).box
        scale = width / float(box[2] - box[0])
        side = round(source.shape[0] * scale)
        small = cv2.resize(source, (side, side), interpolation=cv2.INTER_AREA)
        corner = ((box[:2] + box[2:]) / 2 * scale - 0.75 * width).astype(int).clip(0)
        part = small[corner[1] : corner[1] + 2 * width, corner[0] : corner[0] + round(1.5 * width)]
        row, column = cells[order[number]]
        top = row * 240 + int(rng.integers(0, 240 - part.shape[0]))
        left = column * 320 + int(rng.integers(0, 320 - part.shape[1]))
        picture[top : top + part.shape[0], left : left + part.shape[1]] = part
        shift = np.array([left, top] * 2, np.float32) - np.tile(corner, 2)
        boxes.append((box * scale + shift).astype(np.float32))
        widths.append(width)
    return Scene(picture, boxes, widths)


def _clutter(rng: np.random.Generator) -> Image:
    """Shapes, lines and letters of all colours over a gradient, with grain: no face."""
    height, width = _SCENE_SIZE
    ramp = np.linspace(rng.integers(0, 256, 3), rng.integers(0, 256, 3), width)
    picture = np.tile(ramp[None], (height, 1, 1)).astype(np.uint8)
    for _ in range(120):
        colour = rng.integers(0, 256, 3).tolist()
        x, y = (int(n) for n in rng.integers(0, [width, height]))
        w, h = (int(n) for n in rng.integers(4, 160, 2))
        kind = int(rng.integers(4))
        if kind == 0:
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
        elif kind == 1:
            cv2.ellipse(picture, (x, y), (w // 2, h // 2), w, 0, 360, colour, -1)
        elif kind == 2:  # noqa: PLR2004 - one of four kinds
            cv2.line(picture, (x, y), (x + w, y - h), colour, 1 + w % 7)
        else:
            letter = chr(65 + w % 26)
            cv2.putText(picture, letter, (x, y), cv2.FONT_HERSHEY_SIMPLEX, h / 30, colour, 3)
    grain = rng.normal(0.0, 6.0, picture.shape)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def _overlap(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Intersection over union of two boxes x1 y1 x2 y2."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (a, b)]
    return shared / (sum(areas) - shared)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
