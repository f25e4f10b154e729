"""`picket evaluate DATA/ --hide mask,sunglasses,…`: what the node finds of people who hide.

Enters: a protocol. Every probe is hidden by occluders.py, by each of the things asked for, looked
for again by the detector on the hidden picture, and read as the node reads it (vision/reader.py):
the node is not told what is hidden, its classifier says. Leaves: one row per thing beside bare
faces, the classifier's answers, and whether the promised false-alert rate holds for all of them
together.

A probe may have been read for several columns. Each column's cosine becomes the rate at which
strangers reach it, divided by the column's share of the probe, as services/watch.py does; a
probe's score is the smallest of these, as a negative power of ten. So one threshold serves all.
"""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.accelerator.manifest import Manifest
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.config import Detection, Models
from appliance.errors import EvaluationError, PhotoError
from appliance.evaluation.extract import central
from appliance.evaluation.identification import Bootstrap, Operating, Trials
from appliance.evaluation.occluders import KINDS, Kind, hide
from appliance.evaluation.pictures import decode, fingerprint
from appliance.evaluation.progress import progress
from appliance.evaluation.protocol import Picture, Protocol, Role
from appliance.interfaces import Detector
from appliance.types import FalseMatch, Image, Vector
from appliance.vision.align import align
from appliance.vision.detector import FaceDetector
from appliance.vision.embedder import FaceEmbedder
from appliance.vision.occlusion import HIDDEN, Teller
from appliance.vision.quality import QualityGate
from appliance.vision.reader import COLUMNS, WHOLE, Reader, open_part
from appliance.watchlist.calibration import rate_at

BARE = "bare"
RATE = 0.01
TOGETHER = 5
"""Pictures of a person that are fused: what the node takes of a track by default."""

LOST = "not found"
REFUSED = "refused"
_DRAWS = 20
_GRID = np.linspace(-1.0, 1.0, 4001)

Thing = str
"""BARE, or one of occluders.KINDS."""

_Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Eyes:
    """The node's models, and what their cosines mean.

    Attributes:
        tables: false matches of each column.
        embed_whole, embed_part: make templates of a bare crop, for each column.
    """

    detector: Detector
    reader: Reader
    gate: QualityGate
    embed_whole: Callable[[Image], Vector]
    embed_part: Mapping[str, Callable[[Image], Vector]]
    tables: Mapping[str, FalseMatch]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one picture gave.

    Attributes:
        told: one of HIDDEN, LOST or REFUSED.
    """

    told: str
    vectors: Mapping[str, Vector]


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that hides faces.

    Attributes:
        told: how often the classifier said what, of all probes.
        one, five: TPIR at FPIR 1 % of one picture, and of TOGETHER pictures of a person.
        kept: FPIR at the threshold that promises 1 %.
    """

    thing: Thing
    told: dict[str, int]
    one: Operating
    five: Operating
    kept: float


def open_eyes(stack: ExitStack, *, folder: Path, threads: int = 2) -> Eyes:
    """The node's models.

    Raises:
        EvaluationError: the node has none for hidden faces.
        ModelError: one cannot be used.
    """
    names, bounds, manifest = Models(), Detection(), Manifest.load(folder)
    if not (names.hidden and names.occlusion):
        raise EvaluationError("no models for hidden faces are configured")
    bare, hidden = manifest.model(names.embedder), manifest.model(names.hidden)
    if bare.false_match is None:
        raise EvaluationError(f"{bare.spec.name}: its false matches were never measured")

    def load(name: str) -> TfliteAccelerator:
        return stack.enter_context(TfliteAccelerator(manifest.model(name), threads=threads))

    whole, part = FaceEmbedder(load(names.embedder)), FaceEmbedder(load(names.hidden))
    return Eyes(
        detector=FaceDetector(
            load(names.detector), min_score=bounds.min_score, max_faces=bounds.max_faces
        ),
        reader=Reader(embedder=whole, hidden=part, teller=Teller(load(names.occlusion))),
        gate=QualityGate(),
        embed_whole=whole.embed,
        embed_part={p: lambda crop, p=p: open_part(crop, p, part, whole) for p in COLUMNS},  # type: ignore[misc]  # a bound default
        tables={WHOLE: bare.false_match, **hidden.columns},
    )


def evaluate_hidden(
    protocol: Protocol, things: Sequence[Kind], eyes: Eyes, *, seed: int
) -> list[Row]:
    """Measure bare faces and each thing.

    Args:
        protocol: its gallery is enrolled bare.
        things: what hides the probes.
        eyes: see open_eyes.
        seed: of what is drawn and of the intervals.
    """
    shown: tuple[Thing, ...] = (BARE, *things)
    probes = [p for p in protocol.pictures if p.role in (Role.MATED, Role.NONMATED)]
    listed = [p for p in protocol.pictures if p.role is Role.GALLERY]
    with progress("pictures", len(listed) + len(probes) * len(shown)) as tick:
        done = iter(range(1, 1 << 31))

        def look(picture: Picture, thing: Thing) -> Seen:
            seen = see(picture, thing, eyes, seed)
            tick(next(done))
            return seen

        bare: dict[str, Image] = {}
        for picture in listed:
            crop = _crop(decode(fingerprint(picture.path)[0], picture.path), eyes)
            if crop is not None and not isinstance(crop, str):
                bare.setdefault(picture.subject, crop)
            tick(next(done))
        gallery = Gallery(bare, eyes)
        seen = {thing: [look(p, thing) for p in probes] for thing in shown}
    who = [(p.role, p.subject) for p in probes]
    return [row_of(thing, who, seen[thing], gallery, seed=seed) for thing in shown]


def see(picture: Picture, thing: Thing, eyes: Eyes, seed: int) -> Seen:
    """Hide, look again, read."""
    try:
        image = decode(fingerprint(picture.path)[0], picture.path)
    except PhotoError:
        return Seen(LOST, {})
    if thing != BARE:
        faces = eyes.detector.detect(image)
        if not faces:
            return Seen(LOST, {})
        draw = zlib.crc32(f"{seed}/{picture.path.name}".encode())
        image = hide(image, central(faces, image).landmarks, _kind(thing), draw)
    crop = _crop(image, eyes)
    if crop is None:
        return Seen(LOST, {})
    if isinstance(crop, str):
        return Seen(crop, {})
    reading = eyes.reader.read(crop, eyes.tables)
    return Seen(reading.hidden or "none", reading.vectors)


def _kind(thing: Thing) -> Kind:
    return next(kind for kind in KINDS if kind == thing)


def _crop(image: Image, eyes: Eyes) -> Image | str | None:
    """The aligned face; REFUSED by the gate; None without a face."""
    faces = eyes.detector.detect(image)
    if not faces:
        return None
    face = central(faces, image)
    crop = align(image, face.landmarks)
    return crop if eyes.gate.assess(crop, face).refusal is None else REFUSED


class Gallery:
    """Templates of every column, one row per subject, and what a cosine with them is worth.

    Args:
        bare: an aligned crop of each subject.
        eyes: makes the templates.
    """

    def __init__(self, bare: Mapping[str, Image], eyes: Eyes) -> None:
        self.subjects = {subject: row for row, subject in enumerate(bare)}
        self._tables = eyes.tables
        makers = {WHOLE: eyes.embed_whole, **eyes.embed_part}
        self._templates = {
            name: np.stack([makers[name](crop) for crop in bare.values()]) for name in eyes.tables
        }

    def worth(self, vectors: Mapping[str, tuple[Vector, float]]) -> _Scores:
        """(subjects,) how rarely strangers come so near, as a negative power of ten.

        Args:
            vectors: by column, with the column's share.
        """
        best = np.full(len(self.subjects), -np.inf)
        for name, (vector, share) in vectors.items():
            cosines = self._templates[name] @ vector
            rates = np.interp(cosines, _GRID, _powers(self._tables[name], len(self.subjects)))
            np.maximum(best, rates + math.log10(share), out=best)
        return best


@lru_cache(maxsize=16)
def _powers(table: FalseMatch, templates: int) -> _Scores:
    """-log10 of the rate at each cosine of _GRID."""
    rates = [rate_at(table, float(cosine), templates=templates) for cosine in _GRID]
    return -np.log10(np.maximum(rates, 1e-300))


def row_of(
    thing: Thing,
    who: Sequence[tuple[Role, str]],
    seen: Sequence[Seen],
    gallery: Gallery,
    *,
    seed: int,
) -> Row:
    """What one thing does to the node.

    Args:
        thing: what hid the probes.
        who: role and subject of each probe.
        seen: what each gave.
        gallery: whom they are compared with.
        seed: of draws and intervals.
    """
    shown = [(role, subject, s) for (role, subject), s in zip(who, seen, strict=True)]
    mated = [(subject, s) for role, subject, s in shown if role is Role.MATED]
    strangers = [(subject, s) for role, subject, s in shown if role is Role.NONMATED]
    alone = [(subject, _shared([s])) for subject, s in mated]
    others = [(subject, _shared([s])) for subject, s in strangers]
    together = [(subject, _shared(some)) for subject, some in _draws(mated, seed)]
    single = _trials(alone, others, gallery)
    # Who is on the list is a stranger to everybody else on it.
    fused = _trials(together, None, gallery)
    return Row(
        thing=thing,
        told=dict(Counter(s.told for s in seen)),
        one=Bootstrap(single, seed=seed).at_fpir(RATE),
        five=Bootstrap(fused, seed=seed).at_fpir(RATE),
        kept=float(np.mean(single.nonmated >= -math.log10(RATE))),
    )


def _shared(seen: Sequence[Seen]) -> dict[str, tuple[Vector, float]]:
    """The mean vector of each column, with the column's share of all vectors."""
    total = sum(len(s.vectors) for s in seen)
    columns: dict[str, tuple[Vector, float]] = {}
    for name in dict.fromkeys(name for s in seen for name in s.vectors):
        vectors = [s.vectors[name] for s in seen if name in s.vectors]
        mean = np.mean(vectors, axis=0)
        columns[name] = np.asarray(mean / np.linalg.norm(mean), np.float32), len(vectors) / total
    return columns


def _draws(mated: Sequence[tuple[str, Seen]], seed: int) -> Iterator[tuple[str, Sequence[Seen]]]:
    """TOGETHER pictures of each person who has as many, several times."""
    rng = np.random.default_rng(seed)
    of: dict[str, list[Seen]] = {}
    for subject, seen in mated:
        if seen.vectors:
            of.setdefault(subject, []).append(seen)
    for subject, pictures in of.items():
        for _ in range(_DRAWS if len(pictures) >= TOGETHER else 0):
            yield subject, [pictures[i] for i in rng.permutation(len(pictures))[:TOGETHER]]


def _trials(
    mated: Sequence[tuple[str, Mapping[str, tuple[Vector, float]]]],
    strangers: Sequence[tuple[str, Mapping[str, tuple[Vector, float]]]] | None,
    gallery: Gallery,
) -> Trials:
    own, best_others, whose = [], [], []
    for subject, vectors in mated:
        worth = gallery.worth(vectors)
        row = gallery.subjects.get(subject)
        mine = -np.inf if row is None else worth[row]
        if row is not None:
            worth[row] = -np.inf
        own.append(mine if mine > worth.max() else -np.inf)
        best_others.append(worth.max())
        whose.append(subject)
    _, people = np.unique(whose, return_inverse=True)
    if strangers is None:
        return Trials(np.array(own), people, np.array(best_others), people)
    scores = [gallery.worth(vectors).max() for _, vectors in strangers]
    _, strange = np.unique([subject for subject, _ in strangers], return_inverse=True)
    return Trials(np.array(own), people, np.array(scores), strange)


def in_words(rows: Sequence[Row]) -> str:
    """A table in Markdown."""
    bare = rows[0]
    head = (
        "| hidden by | found, read | TPIR at FPIR 1 %, one picture | of bare |"
        f" {TOGETHER} of a person | of bare | FPIR where 1 % is promised |"
    )
    lines = [head, "|---|---|---|---|---|---|---|"]
    for row in rows:
        probes = sum(row.told.values())
        read = probes - row.told.get(LOST, 0) - row.told.get(REFUSED, 0)
        lines.append(
            f"| {row.thing} | {read / probes:.1%} | {_interval(row.one)} |"
            f" {row.one.tpir.value / bare.one.tpir.value:.2f} | {_interval(row.five)} |"
            f" {row.five.tpir.value / bare.five.tpir.value:.2f} | {row.kept:.2%} |"
        )
    kept = sum(row.kept for row in rows) / len(rows)
    answers = [*HIDDEN, REFUSED, LOST]
    lines += ["", f"All of them mixed: FPIR {kept:.2%} where 1 % is promised.", ""]
    lines += [
        "| shown | " + " | ".join(f"told: {answer}" for answer in answers) + " |",
        "|---|" + "---|" * len(answers),
    ]
    for row in rows:
        probes = sum(row.told.values())
        cells = (f"{row.told.get(answer, 0) / probes:.1%}" for answer in answers)
        lines.append(f"| {row.thing} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(rows: Sequence[Row], out: Path) -> Path:
    """hidden.json and hidden.md in a folder.

    Raises:
        EvaluationError: they cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        record = {row.thing: asdict(row) for row in rows}
        (out / "hidden.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        page = out / "hidden.md"
        page.write_text(in_words(rows) + "\n", encoding="utf-8")
    except OSError as e:
        raise EvaluationError(f"{out}: cannot be written: {e.strerror}") from e
    return page


def _interval(point: Operating) -> str:
    rate = point.tpir
    return f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]"
