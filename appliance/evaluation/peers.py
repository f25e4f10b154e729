"""`make bench-peers`: the same work done by others, on the same pictures, in the same run.

    python -m appliance.evaluation.peers --python .venv-peers/bin/python --data lfw-dev

Each peer, and ours, runs in a process of its own (peer_worker.py, or this module with --ours), one
after the other. What is absent is skipped, and the table says so. Where a peer wins, it says that
too: ratios are theirs to ours, and below 1 they are faster.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from appliance.errors import PicketError
from appliance.evaluation import peer_worker
from appliance.evaluation.bench import overlap
from appliance.evaluation.bench_report import FACES, SMALL_PX
from appliance.evaluation.compare import Gallery
from appliance.evaluation.evaluate import collect
from appliance.evaluation.frames import walk
from appliance.evaluation.identification import Bootstrap, Operating, Trials
from appliance.evaluation.models import Loaded, load
from appliance.evaluation.page import write_both
from appliance.evaluation.peers_report import (
    EMBEDDERS,
    EVERYONE,
    OUR_DETECTOR,
    OURS,
    Row,
    page,
    skipped,
    tables,
)
from appliance.evaluation.protocol import Protocol, Role
from appliance.evaluation.protocol import load as load_protocol
from appliance.types import Face, Image, Vector, Vectors
from appliance.vision.align import align

MODULE = "appliance.evaluation.peers"
"""This one, also when it is run as __main__."""

WORKER = Path(__file__).with_name("peer_worker.py")

_LIMIT_S = 3600.0
_SCENES = 3
_ROUNDS = 30
_FRAMES = 2
_FPIR = 0.01
_WIDTH = 110
"""Of the tables, also where there is no terminal."""


Box = tuple[float, float, float, float]


class AbsentError(PicketError):
    """A peer cannot run here; the reason goes into the table."""


class Workshop:
    """Where peers get their input from and leave their output.

    Args:
        python: of the peers' environment.
        weights: folder of peers' weights, None if there is none.
        folder: scratch.
        kept: folder of vectors that are worth keeping from run to run.
    """

    def __init__(self, *, python: Path, weights: Path | None, folder: Path, kept: Path) -> None:
        self._python, self._weights, self._folder, self.kept = python, weights, folder, kept

    def speed(self, name: str, frames: Path) -> dict[str, object]:
        """Times, faces and memory on sets of frames.

        Raises:
            AbsentError: the peer cannot run here.
        """
        out = self._folder / f"{name}-speed.json"
        self._run(name, "speed", frames, out)
        report: dict[str, object] = json.loads(out.read_text(encoding="utf-8"))
        return report

    def boxes(self, name: str, listing: Path) -> np.ndarray:
        """(m, 5) picture and box of every face found."""
        out = self._folder / f"{name}-{listing.stem}.npz"
        self._run(name, "detect", listing, out)
        with np.load(out) as found:
            return np.asarray(found["boxes"])

    def vectors(self, name: str, listing: Path) -> Vectors:
        """(n, dim), NaN where no face was found; kept, because dlib takes a quarter of an hour."""
        out = self.kept / f"{name}-{listing.stem}.npz"
        if not out.is_file():
            self._run(name, "embed", listing, out)
        with np.load(out) as found:
            return np.asarray(found["vectors"])

    def _run(self, name: str, task: str, source: Path, out: Path) -> None:
        if name in (OURS, OUR_DETECTOR):
            command = [sys.executable, "-m", MODULE, "--ours", name, task, str(source), str(out)]
        else:
            if not self._python.is_file():
                raise AbsentError(f"no environment of peers at {self._python}")
            command = [str(self._python), str(WORKER), task, name, str(source), str(out)]
            command += ["--weights", str(self._weights)] if self._weights else []
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
        if done.returncode:
            raise AbsentError(_reason(done.stderr))


def _reason(stderr: str) -> str:
    """The last line that says something: libraries end in code fences and blank lines."""
    lines = [line for line in stderr.splitlines() if any(c.isalpha() for c in line)]
    return lines[-1] if lines else "it said nothing"


def compare(workshop: Workshop, scratch: Path, data: Path | None) -> list[Row]:
    """Every peer on the same frames and, if there is data, on the same pictures."""
    frames, listing, truth = _speed_frames(scratch), *_small_faces(scratch)
    protocol = load_protocol(data, seed=1) if data else None
    rows: list[Row] = []
    for name in EVERYONE:
        print(f"{EVERYONE[name]} …", file=sys.stderr, flush=True)
        row = Row(name)
        rows.append(row)
        try:
            _measure(row, workshop, frames, listing, truth)
            if protocol is not None and name in EMBEDDERS:
                _recognise(row, workshop, scratch, protocol)
        except AbsentError as e:
            row.absent = str(e)
    return rows


def _measure(
    row: Row, workshop: Workshop, frames: Path, listing: Path, truth: list[np.ndarray]
) -> None:
    report = workshop.speed(row.name, frames)
    row.peak_rss_mib = float(str(report.pop("peak_rss_mib")))
    for key, figures in report.items():
        if isinstance(figures, dict):
            row.ms[int(key)] = figures["ms"]
            row.best_ms[int(key)] = figures["best_ms"]
            row.cpu_ms[int(key)] = figures["cpu_ms"]
            row.faces[int(key)] = figures["faces"]
    if row.name == OURS:  # its detector has a row of its own
        return
    boxes = workshop.boxes(row.name, listing)
    by_width = np.array_split(np.arange(len(truth)), len(SMALL_PX))
    for width, pictures in zip(SMALL_PX, by_width, strict=True):
        hits = [
            any(overlap(box, face) > 1 / 3 for box in boxes[boxes[:, 0] == picture][:, 1:])
            for picture in pictures
            for face in truth[picture]
        ]
        row.small[width] = float(np.mean(hits))


def _recognise(row: Row, workshop: Workshop, scratch: Path, protocol: Protocol) -> None:
    listing = scratch / f"{protocol.folder.resolve().name}.txt"
    listing.write_text("".join(f"{p.path}\n" for p in protocol.pictures), encoding="utf-8")
    if row.name == OURS:
        with load() as models:
            samples = collect(protocol, models, cache=None)
        dim = next(len(s.vector) for s in samples if s.vector is not None)
        blank = np.full(dim, np.nan, np.float32)
        vectors = np.array([blank if s.vector is None else s.vector for s in samples])
    else:
        vectors = workshop.vectors(row.name, listing)
    row.missed = int(np.isnan(vectors).any(axis=1).sum())
    row.pictures = len(vectors)
    row.tpir = identify(vectors, protocol, distance=row.name != OURS).tpir


def identify(vectors: Vectors, protocol: Protocol, *, distance: bool) -> Operating:
    """TPIR at FPIR 1 % with any embedder's vectors.

    Args:
        vectors: (n, dim), NaN where there is none.
        protocol: of the same pictures.
        distance: compare by the negative squared Euclidean distance, as dlib is meant to be,
            instead of by cosine.
    """
    roles = np.array([p.role for p in protocol.pictures])
    names = {name: i for i, name in enumerate(sorted({p.subject for p in protocol.pictures}))}
    people = np.array([names[p.subject] for p in protocol.pictures])
    usable = ~np.isnan(vectors).any(axis=1)
    rows = (roles == Role.GALLERY) & usable
    mated, strangers = roles == Role.MATED, roles == Role.NONMATED
    templates, probes = _as_products(vectors) if distance else (vectors, vectors)
    gallery = Gallery(templates[rows], people[rows])
    found = gallery.compare(probes[mated], people[mated])
    alarms = gallery.compare(probes[strangers], people[strangers])
    trials = Trials(
        np.where(found.rank_one, found.own, -np.inf),
        people[mated],
        alarms.other,
        people[strangers],
    )
    return Bootstrap(trials, seed=1).at_fpir(_FPIR)


def _as_products(vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Vectors whose inner products are -|a - b|²: 2ab - a² - b²."""
    squares = (vectors**2).sum(axis=1, keepdims=True)
    ones = np.ones_like(squares)
    left = np.concatenate([np.sqrt(2) * vectors, -squares, ones], axis=1)
    right = np.concatenate([np.sqrt(2) * vectors, ones, -squares], axis=1)
    return left.astype(np.float32), right.astype(np.float32)


def _speed_frames(scratch: Path) -> Path:
    path = scratch / "frames.npz"
    sets = {str(faces): walk(faces, frames=_FRAMES).frames for faces in FACES}
    np.savez(path, rounds=np.array(_ROUNDS), **sets)  # type: ignore[arg-type]  # numpy's stub
    return path


def _small_faces(scratch: Path) -> tuple[Path, list[np.ndarray]]:
    """Pictures of sixteen small faces each, in order of SMALL_PX, and where the faces are."""
    paths, truth = [], []
    for width in SMALL_PX:
        for seed in range(1, _SCENES + 1):
            scene = walk(16, face_px=float(width), frames=1, seed=seed)
            paths.append(scratch / f"small-{width}-{seed}.png")
            cv2.imwrite(str(paths[-1]), scene.frames[0][:, :, ::-1])
            truth.append(scene.boxes[0])
    listing = scratch / "small.txt"
    listing.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    return listing, truth


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m appliance.evaluation.peers")
    parser.add_argument("--python", type=Path, default=Path(".venv-peers/bin/python"))
    parser.add_argument("--data", type=Path, help="face data for recognition; none: speed only")
    parser.add_argument("--kept", type=Path, help="folder for vectors (default: your cache folder)")
    parser.add_argument("--out", type=Path, default=Path("bench-peers"), help="of the report")
    parser.add_argument("--ours", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.ours:
        return _ours(*arguments.ours)
    weights = os.environ.get("PICKET_PEERS")
    kept = arguments.kept or Path.home() / ".cache" / "picket" / "peers"
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="picket-peers-") as name:
        workshop = Workshop(
            python=arguments.python,
            weights=Path(weights) if weights else None,
            folder=Path(name),
            kept=kept,
        )
        rows = compare(workshop, Path(name), arguments.data)
    console = Console()
    console.width = max(console.width, _WIDTH)
    for table in tables(rows):
        console.print(table)
    for line in skipped(rows):
        console.print(line, highlight=False, soft_wrap=True)
    where = write_both(arguments.out, page(rows), [asdict(row) for row in rows])
    console.print(f"report: {where}", highlight=False)
    return 0


class Ours:
    """Our models in the shape of a peer: see peer_worker.py."""

    def __init__(self, models: Loaded, *, embeds: bool) -> None:
        self._models, self._faces = models, dict[Box, Face]()
        self.dim = models.embedder.dim if embeds else 0

    def detect(self, image: Image) -> list[Box]:
        """Boxes; the faces are remembered until the next picture."""
        faces = self._models.detector.detect(image)
        self._faces = {_box(face): face for face in faces}
        return list(self._faces)

    def embed(self, image: Image, box: Box) -> Vector:
        """The vector of a face just found."""
        return self._models.embedder.embed(align(image, self._faces[box].landmarks))


def _box(face: Face) -> Box:
    x1, y1, x2, y2 = (float(v) for v in face.box)
    return x1, y1, x2, y2


def _ours(name: str, task: str, source: str, out: str) -> int:
    """What peer_worker.py does, with our models."""
    with load() as models:
        peer = Ours(models, embeds=name == OURS)
        work = peer_worker.speed if task == "speed" else peer_worker.detect
        work(peer, Path(source), Path(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
