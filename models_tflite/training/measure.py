"""The int8 models for hidden faces, measured: python measure.py DATA MODELS WORK.

Enters: the crops that judge.py hid, of people never trained on. Leaves: how often strangers match
in each column, for the manifest (build/measured/hidden_match.json), and the table of
`picket evaluate --hide`, with the classifier in the loop, for the card.

Strangers: probes are means of up to five hidden pictures of a person, as the node fuses a track,
or the one that there is; templates are those of bare pictures, two at most of a person.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from judge import BARE, PART_OF, judged

from appliance.accelerator.manifest import Manifest
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.evaluation.calibrate import People, table_of
from appliance.evaluation.hidden import LOST, Eyes, Gallery, Seen, in_words, row_of
from appliance.evaluation.persons import MAX_FUSED, mean
from appliance.evaluation.protocol import Role
from appliance.types import FalseMatch, Image, Vector
from appliance.vision.detector import FaceDetector
from appliance.vision.embedder import FaceEmbedder
from appliance.vision.occlusion import Part, Teller, fill
from appliance.vision.quality import QualityGate
from appliance.vision.reader import COLUMNS, WHOLE, Reader, joined, open_part

MATCH = Path(__file__).parents[1] / "build/measured/hidden_match.json"
SEED = 1
SOURCE = (
    "lfw-dev, subjects never trained on (training/split.py), things drawn by"
    " evaluation/occluders.py, found again by centerface-320x320"
)
_TEMPLATES_EACH = 2


class Bench:
    """Models and crops.

    Args:
        data, models, work: folders.
        stack: closes the models.
    """

    def __init__(self, data: Path, models: Path, work: Path, stack: ExitStack) -> None:
        manifest = Manifest.load(models)

        def load(name: str) -> TfliteAccelerator:
            return stack.enter_context(TfliteAccelerator(manifest.model(name), threads=1))

        self._whole = FaceEmbedder(load("mobilefacenet-112"))
        self._hidden = FaceEmbedder(load("mobilefacenet-112-hidden"))
        self._teller = Teller(load("occlusion-112"))
        self._detector = FaceDetector(load("centerface-320x320"), min_score=0.35, max_faces=20)
        self._bare = manifest.model("mobilefacenet-112").false_match
        self.pictures = judged(data)
        self._folder = work / "judged"

    def crops(self, thing: str) -> Image:
        """(n, 112, 112, 3), in the order of `pictures`."""
        return np.asarray(np.load(self._folder / f"{thing}.npy", mmap_mode="r"))

    def eyes(self, tables: dict[str, FalseMatch]) -> Eyes:
        """What evaluation/hidden.py works with."""
        hidden, whole = self._hidden, self._whole
        if self._bare is None:
            raise ValueError("mobilefacenet-112 has no false_match table")
        return Eyes(
            detector=self._detector,
            reader=Reader(embedder=self._whole, hidden=hidden, teller=self._teller),
            gate=QualityGate(),
            embed_whole=self._whole.embed,
            embed_part={p: lambda crop, p=p: open_part(crop, p, hidden, whole) for p in COLUMNS},
            tables={WHOLE: self._bare, **tables},
        )

    def table(self, part: Part) -> FalseMatch:
        """False matches in one column."""
        number = {
            subject: n for n, subject in enumerate(sorted({p.subject for p in self.pictures}))
        }
        templates = self._templates(part, number)
        probes = self._probes(part, number)
        print(f"{part}: {len(probes.whose)} probes, {len(templates.whose)} templates", flush=True)
        return table_of(probes, templates, source=SOURCE, seed=SEED)

    def _templates(self, part: Part, number: dict[str, int]) -> People:
        vectors, whose = [], []
        taken: Counter[str] = Counter()
        for picture, crop in zip(self.pictures, self.crops(BARE), strict=True):
            taken[picture.subject] += 1
            if crop.any() and taken[picture.subject] <= _TEMPLATES_EACH:
                vectors.append(open_part(crop, part, self._hidden, self._whole))
                whose.append(number[picture.subject])
        return People(np.stack(vectors), np.array(whose))

    def _probes(self, part: Part, number: dict[str, int]) -> People:
        vectors, whose = [], []
        for thing, hides in PART_OF.items():
            if hides != part:
                continue
            of: dict[str, list[Vector]] = {}
            for picture, crop in zip(self.pictures, self.crops(thing), strict=True):
                if crop.any() and len(of.get(picture.subject, ())) < MAX_FUSED:
                    filled = np.array(crop)
                    fill(filled, part)
                    vector = joined(self._whole.embed(crop), self._hidden.embed(filled), part)
                    of.setdefault(picture.subject, []).append(vector)
            vectors += [mean(np.stack(each)) for each in of.values()]
            whose += [number[subject] for subject in of]
        return People(np.stack(vectors), np.array(whose))


def table_of_things(bench: Bench, tables: dict[str, FalseMatch]) -> str:
    """What the node finds, in words."""
    eyes = bench.eyes(tables)
    bare = {
        p.subject: crop
        for p, crop in zip(bench.pictures, bench.crops(BARE), strict=True)
        if p.role == "gallery" and crop.any()
    }
    gallery = Gallery({subject: np.array(crop) for subject, crop in bare.items()}, eyes)
    probes = [n for n, p in enumerate(bench.pictures) if p.role != "gallery"]
    who = [(Role(bench.pictures[n].role), bench.pictures[n].subject) for n in probes]
    rows = []
    for thing in (BARE, *PART_OF):
        crops = bench.crops(thing)
        seen = [_read(np.array(crops[n]), eyes) for n in probes]
        rows.append(row_of(thing, who, seen, gallery, seed=SEED))
        print(f"{thing}: {rows[-1].one.tpir.value:.3f}", flush=True)
    return in_words(rows)


def _read(crop: npt.NDArray[np.uint8], eyes: Eyes) -> Seen:
    if not crop.any():
        return Seen(LOST, {})
    reading = eyes.reader.read(crop, eyes.tables)
    return Seen(reading.hidden or "none", reading.vectors)


def main(arguments: list[str]) -> None:
    """See the module."""
    data, models, work = (Path(argument) for argument in arguments)
    with ExitStack() as stack:
        bench = Bench(data, models, work, stack)
        tables = {str(part): bench.table(part) for part in COLUMNS}
        record = {name: asdict(table) for name, table in tables.items()}
        MATCH.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(table_of_things(bench, tables))


if __name__ == "__main__":
    main(sys.argv[1:])
