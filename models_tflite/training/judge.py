"""What a network finds behind hidden parts, on people whom it was not trained on.

Enters: a data folder and weights. Leaves: a table. python judge.py DATA MODELS WORK [WEIGHTS]:
without weights the bare embedder is judged, on bare faces and filled ones; "int8" for WEIGHTS
judges the models as they are in MODELS. Which part is hidden is known here; measure.py has the
classifier say it.

Protocol: of open_set.csv only subjects outside the training part (split.py). Every probe is hidden
by appliance/evaluation/occluders.py and looked for again by the node's detector; the gallery is
bare, and read like the probes, as vision/reader.py does it: a face under a cap as a bare one.
Threshold: FPIR 1 % on strangers hidden in the same way. Intervals:
95 %, by resampling subjects.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from prepare import Finder, read
from split import Picture, pictures

from appliance.accelerator.manifest import Manifest
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.evaluation.compare import NOBODY, Gallery, Scores
from appliance.evaluation.identification import Bootstrap, Operating, Trials
from appliance.evaluation.occluders import Kind, hide
from appliance.evaluation.persons import fused
from appliance.types import Image, Vectors
from appliance.vision.align import align
from appliance.vision.embedder import FaceEmbedder
from appliance.vision.occlusion import Part, fill
from appliance.vision.reader import COLUMNS, joined

PART_OF: dict[Kind, Part] = {
    "mask": "lower",
    "scarf": "lower",
    "sunglasses": "eyes",
    "cap": "upper",
}
READ_AS: dict[str, Part] = {kind: part for kind, part in PART_OF.items() if part in COLUMNS}
BARE = "bare"
HIDDEN = "mobilefacenet-112-hidden"
RATE = 0.01
TOGETHER = 5

Embed = Callable[[Image], Vectors]
"""(n, 112, 112, 3) uint8 to (n, dim), of norm 1."""


def judged(data: Path) -> list[Picture]:
    """Pictures of the protocol whose subjects were not trained on."""
    return [p for p in pictures(data) if p.role and not p.trained_on]


def crops(data: Path, models: Path, out: Path) -> None:
    """Hide, look again, align; once. Each file: (n, 112, 112, 3), zeros where no face was found."""
    out.mkdir(parents=True, exist_ok=True)
    names = [BARE, *PART_OF]
    if all((out / f"{name}.npy").exists() for name in names):
        return
    finder, chosen = Finder(models), judged(data)
    found = {name: np.zeros((len(chosen), 112, 112, 3), np.uint8) for name in names}
    for number, picture in enumerate(chosen):
        image = read(data / "images" / picture.path)
        bare = finder.find(image)
        if bare is None:
            continue
        found[BARE][number] = align(image, bare.landmarks)
        for kind in PART_OF if picture.role != "gallery" else ():
            seed = zlib.crc32(picture.path.encode())
            hidden = hide(image, bare.landmarks, kind, seed)
            face = finder.find(hidden)
            if face is not None:
                found[kind][number] = align(hidden, face.landmarks)
        if number % 200 == 0:
            print(f"hidden: {number} of {len(chosen)}", flush=True)
    for name, each in found.items():
        np.save(out / f"{name}.npy", each)


class Judge:
    """Tests over one folder of crops.

    Args:
        chosen: see judged().
        folder: see crops().
    """

    def __init__(self, chosen: list[Picture], folder: Path) -> None:
        self._folder = folder
        self._roles = np.array([p.role for p in chosen])
        self._subjects = np.unique([p.subject for p in chosen], return_inverse=True)[1]

    def vectors(
        self, name: str, part: Part | None, role: str, bare: Embed, hidden: Embed
    ) -> Vectors:
        """Of the pictures of one role; NaN where no face was found.

        Args:
            name: of the crops.
            part: what is hidden; None reads whole faces.
            role: of the protocol; a gallery's crops give templates.
            bare: for whole faces.
            hidden: for filled ones.
        """
        images = np.load(self._folder / f"{name}.npy")[self._roles == role]
        lost = ~images.any(axis=(1, 2, 3))
        vectors = bare(images)
        if part is not None:
            filled = np.array(images)
            fill(filled, part)
            rest = hidden(filled)
            if role == "gallery":
                mirrored = np.array(images[:, :, ::-1])
                fill(mirrored, part)
                rest = unit(rest + hidden(mirrored))
                vectors = unit(vectors + rest)
            else:
                pairs = zip(vectors, rest, strict=True)
                vectors = np.stack([joined(whole, open_, part) for whole, open_ in pairs])
        vectors[lost] = np.nan
        return vectors

    def trials(self, gallery: Vectors, mated: Vectors, nonmated: Vectors) -> Trials:
        """Every probe against the gallery."""
        own = self._subjects[self._roles == "mated"]
        return _trials(Gallery(gallery, self.gallery_subjects), mated, own, nonmated)

    @property
    def gallery_subjects(self) -> npt.NDArray[np.intp]:
        return np.asarray(self._subjects[self._roles == "gallery"], np.intp)

    def fused_trials(self, gallery: Vectors, mated: Vectors) -> Trials:
        """TOGETHER pictures of a person fused; strangers are the same people, unlisted."""
        probes, whose = fused(
            mated, self._subjects[self._roles == "mated"], pictures=TOGETHER, seed=1
        )
        against = Gallery(gallery, self.gallery_subjects).compare(probes, whose)
        hits = np.where(against.rank_one, against.own, -np.inf)
        return Trials(hits, whose, against.other, whose)


def _trials(
    gallery: Gallery, mated: Vectors, own: npt.NDArray[np.intp], nonmated: Vectors
) -> Trials:
    hits = gallery.compare(mated, own)
    strangers = np.full(len(nonmated), NOBODY)
    scores: Scores = np.where(hits.rank_one, hits.own, -np.inf)
    others = gallery.compare(nonmated, strangers).other
    return Trials(scores, own, others, np.arange(len(nonmated)))


def report(judge: Judge, bare: Embed, hidden: Embed) -> dict[str, tuple[Operating, Operating]]:
    """One picture and TOGETHER of a person, at FPIR 1 %, for bare faces and each kind."""
    found = {}
    for name in (BARE, *PART_OF):
        part = READ_AS.get(name)
        gallery = judge.vectors(BARE, part, "gallery", bare, hidden)
        mated = judge.vectors(name, part, "mated", bare, hidden)
        nonmated = judge.vectors(name, part, "nonmated", bare, hidden)
        one = Bootstrap(judge.trials(gallery, mated, nonmated), seed=3, resamples=300)
        five = Bootstrap(judge.fused_trials(gallery, mated), seed=3, resamples=300)
        found[name] = (one.at_fpir(RATE), five.at_fpir(RATE))
        base = found[BARE]
        text = " | ".join(
            f"{point.tpir.value:.3f} [{point.tpir.low:.3f}, {point.tpir.high:.3f}]"
            f" {point.tpir.value / reference.tpir.value:.2f} of bare"
            for point, reference in zip(found[name], base, strict=True)
        )
        print(f"{name:10} {text}", flush=True)
    return found


def main(arguments: list[str]) -> None:
    """Print the table."""
    from train import Float, base, loaded

    data, models, work = (Path(argument) for argument in arguments[:3])
    crops(data, models, work / "judged")
    graph = base(work / "sources")
    plain = _unit(Float(graph))
    hidden = plain
    if arguments[3:] == ["int8"]:
        plain, hidden = (_int8(models, name) for name in ("mobilefacenet-112", HIDDEN))
    elif arguments[3:]:
        hidden = _unit(Float(loaded(graph, Path(arguments[3]))))
    report(Judge(judged(data), work / "judged"), plain, hidden)


def _int8(models: Path, name: str) -> Embed:
    embedder = FaceEmbedder(TfliteAccelerator(Manifest.load(models).model(name), threads=1))
    return lambda images: np.stack([embedder.embed(image) for image in images])


def _unit(embed: Embed) -> Embed:
    return lambda images: unit(embed(images))


def unit(vectors: Vectors) -> Vectors:
    """Rows of norm 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main(sys.argv[1:])
