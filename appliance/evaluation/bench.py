"""`make bench`: how fast the path of a frame is, and how much memory it needs, on this machine.

 1. each model alone
 2. `Watch.step` for frames of 1280 x 720 with 0, 1, 4 and 16 faces, every face embedded in every
    frame: the worst case; and what is left of it when tracks are decided after five embeddings
 3. small faces: how many are found, by the size of the detector's input
 4. search through lists, beside the time to read them from memory once
 5. the demo's street, in real time: from exposure to the alert at the controller
 6. memory of the process after 1 and 2, before any long list

All in one run, so that ratios compare like with like. Times are wall clock: the fastest tenth,
which is what the code needs, and the median and the 99th percentile, which are what this machine
gave it beside everything else that it did.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
from rich.console import Console

from appliance.accelerator.tflite import TfliteAccelerator
from appliance.alerts.policy import Policy
from appliance.errors import ModelError
from appliance.evaluation.bench_report import (
    DETECTORS,
    FACES,
    LISTS,
    SMALL_PX,
    Invoke,
    Result,
    Search,
    Small,
    Step,
    Street,
    tables,
)
from appliance.evaluation.frames import walk
from appliance.evaluation.models import Loaded, load
from appliance.evaluation.occluders import hide
from appliance.interfaces import Accelerator
from appliance.services.watch import Watch
from appliance.system.clock import SystemClock
from appliance.system.erasure import Ledger
from appliance.system.memory import peak_rss_bytes
from appliance.tracking.tracker import Tracker
from appliance.types import FalseMatch, Frame, ModelSpec, Sighting, Tensor
from appliance.vision.detector import FaceDetector
from appliance.vision.embedder import FaceEmbedder
from appliance.vision.occlusion import Teller
from appliance.vision.quality import QualityGate
from appliance.vision.reader import COLUMNS, WHOLE
from appliance.watchlist.match import Watchlist, watchlist_of

_FRAME_NS = 66_666_667
_STREET_S = 300.0
_DIM = 192
_TABLE = FalseMatch((-1.0, 0.5), (1.0, 1e-4), 0.5, 1e-4, 40.0, 1000, 10**7, "only for timing")


class Stopwatch:
    """An accelerator that adds up the time spent in it."""

    def __init__(self, device: TfliteAccelerator) -> None:
        self._device, self.spent_s = device, 0.0

    @property
    def spec(self) -> ModelSpec:
        """See interfaces.Accelerator."""
        return self._device.spec

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """See interfaces.Accelerator."""
        began = time.perf_counter()
        try:
            return self._device.run(tensor)
        finally:
            self.spent_s += time.perf_counter() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Whoever made the device closes it."""


class _Plain:
    """Memory for lists that are random numbers."""

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))

    def wipe(self) -> None:
        """Nothing in it is anybody's."""


def bench(*, out: Path | None, rounds: int) -> Result:
    """Measure, print a table and write JSON.

    Args:
        out: of the JSON; None writes none.
        rounds: timed repetitions of each step.

    Raises:
        ModelError: no models.
    """
    console = Console()
    with load() as models:
        console.print("models …", highlight=False)
        invokes = tuple(_invoke(device, rounds) for device in _devices(models))
        steps = tuple(_step(models, faces, rounds) for faces in FACES)
        steps += tuple(_step(models, faces, rounds, masked=True) for faces in FACES if faces)
    rss = peak_rss_bytes() / 2**20
    console.print("small faces …", highlight=False)
    small = tuple(_small(name) for name in DETECTORS)
    console.print("lists …", highlight=False)
    searches = tuple(_search(templates, rounds) for templates in LISTS)
    console.print("the street, in real time …", highlight=False)
    street = _street()
    result = Result(
        machine=_machine(),
        cores=os.cpu_count() or 0,
        threads=2,
        invokes=invokes,
        steps=steps,
        small=small,
        searches=searches,
        street=street,
        peak_rss_mib=rss,
    )
    for table in tables(result):
        console.print(table)
    if out is not None:
        record = msgspec.to_builtins(asdict(result), str_keys=True)
        out.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    return result


def _devices(models: Loaded) -> tuple[TfliteAccelerator, ...]:
    """Of the detector, the two embedders, and what tells hidden faces apart."""
    if models.hidden_device is None or models.teller_device is None:
        raise ModelError("no models for part-hidden faces in this folder")
    bare = models.detector_device, models.embedder_device
    return (*bare, models.hidden_device, models.teller_device)


def watch_of(models: Loaded, devices: Sequence[Accelerator], *, embeddings: int) -> Watch:
    """The node's path of a frame, its models on the given devices, every face embedded when due."""
    finds, embeds, reads, tells = devices
    return Watch(
        detector=FaceDetector(finds, min_score=models.min_score, max_faces=32),
        embedder=FaceEmbedder(embeds),
        hidden=FaceEmbedder(reads),
        teller=Teller(tells),
        gate=QualityGate(),
        tracker=Tracker(),
        policy=Policy(cooldown_s=60.0),
        ledger=Ledger(),
        clock=SystemClock(),
        report=_nobody,
        embeddings=embeddings,
        interval_s=0.0,
        hold_s=1e6,
    )


def random_list(templates: int, *, dim: int = _DIM, seed: int = 1) -> Watchlist:
    """A list of unit vectors that are nobody's; the same ones in every column."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((templates, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    watchlist = watchlist_of(
        list_id="bench",
        version=1,
        deployment="bench",
        subjects=[f"s{i}" for i in range(templates)],
        counts=[1] * templates,
        vectors=vectors,
        model="bench@000000000000",
        table=_TABLE,
        target_fpir=0.01,
        threshold_floor=0.3,
        lease_end_ns=2**62,
        allocate=_Plain,
    )
    names = (WHOLE, *COLUMNS)
    return replace(
        watchlist,
        columns=dict.fromkeys(names, watchlist.columns[WHOLE]),
        scales=dict.fromkeys(names, watchlist.scales[WHOLE]),
    )


def _timed(call: Callable[[], object], rounds: int) -> list[float]:
    """Milliseconds of each repetition, after one that does not count."""
    call()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - began))
    return times


def _spread(times: list[float]) -> tuple[float, float, float]:
    """The fastest tenth, the median and the 99th percentile."""
    best, median, worst = np.quantile(times, [0.1, 0.5, 0.99])
    return float(best), float(median), float(worst)


def _invoke(device: TfliteAccelerator, rounds: int) -> Invoke:
    tensor: Tensor = np.zeros(device.spec.input.shape, device.spec.input.dtype)
    times = _timed(lambda: device.run(tensor), rounds)
    return Invoke(device.spec.name, *_spread(times))


def _step(models: Loaded, faces: int, rounds: int, *, masked: bool = False) -> Step:
    scene = walk(faces)
    if masked:
        _mask(models, scene.frames)
    watchlist = random_list(1000)
    devices = [Stopwatch(device) for device in _devices(models)]
    watch = watch_of(models, devices, embeddings=2 * rounds + 2)
    times, ratios, inside = [], [], []
    for index in range(rounds + 1):
        before = sum(device.spent_s for device in devices)
        began = time.perf_counter()
        watch.step(_frame(scene.frames, index), watchlist)
        took = time.perf_counter() - began
        spent = sum(device.spent_s for device in devices) - before
        times.append(1e3 * took)
        inside.append(1e3 * spent)
        ratios.append(took / spent)
    found = len(models.detector.detect(scene.frames[0]))
    best, median, p99 = _spread(times[1:])
    return Step(
        faces=faces,
        masked=masked,
        found=found,
        best_ms=best,
        median_ms=median,
        p99_ms=p99,
        ratio=float(np.median(ratios[1:])),
        invokes_ms=_spread(inside[1:])[0],
        decided_ms=_decided(models, scene.frames, watchlist, rounds),
    )


def _mask(models: Loaded, frames: np.ndarray) -> None:
    """Draw a mask over every face that is found, in place."""
    for frame in frames:
        for number, face in enumerate(models.detector.detect(frame)):
            frame[:] = hide(frame, face.landmarks, "mask", number)


def _decided(models: Loaded, frames: np.ndarray, watchlist: Watchlist, rounds: int) -> float:
    """The same path after every track was decided by its first embedding."""
    watch = watch_of(models, _devices(models), embeddings=1)
    count = iter(range(10**9))
    watch.step(_frame(frames, next(count)), watchlist)
    times = _timed(lambda: watch.step(_frame(frames, next(count)), watchlist), max(5, rounds // 3))
    return _spread(times)[0]


def _frame(frames: np.ndarray, index: int) -> Frame:
    """To and fro, so that nobody jumps."""
    last = len(frames) - 1
    at = last - abs(last - index % (2 * last))
    return Frame(index, (index + 1) * _FRAME_NS, frames[at])


def _small(name: str) -> Small:
    """Faces of known width, sixteen at a time in three scenes; found is an overlap of a third."""
    found: dict[int, float] = {}
    with load(detector=name) as models:
        for width in SMALL_PX:
            hits = total = 0
            for seed in (1, 2, 3):
                scene = walk(16, face_px=float(width), frames=1, seed=seed)
                boxes = [face.box for face in models.detector.detect(scene.frames[0])]
                hits += sum(any(overlap(b, t) > 1 / 3 for b in boxes) for t in scene.boxes[0])
                total += 16
            found[width] = hits / total
        frame = walk(4, frames=1).frames[0]
        times = _timed(lambda: models.detector.detect(frame), 15)
    return Small(name, _spread(times)[0], found)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x1 y1 x2 y2."""
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def _search(templates: int, rounds: int) -> Search:
    watchlist = random_list(templates)
    probe = np.random.default_rng(2).standard_normal(_DIM, np.float32)
    probe /= np.linalg.norm(probe)
    column = watchlist.columns[WHOLE]
    # Reading: the least that can be done with every number, in the widest words.
    words = column.rows.reshape(-1).view(np.int64)
    searching: list[float] = []
    reading: list[float] = []
    # In turns, so that what else the machine does hits both.
    for _ in range(max(10, min(rounds, 20_000_000 // templates))):
        searching += _timed(lambda: watchlist.nearest(probe), 1)
        reading += _timed(lambda: np.bitwise_or.reduce(words), 1)
    best, median, _ = _spread(searching)
    return Search(templates, best, median, 1e3 / best, _spread(reading)[0])


def _street() -> Street | None:
    """Play the demo and read its summary: the one measure over every process and wire."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "demo"],
        capture_output=True,
        text=True,
        timeout=_STREET_S,
        check=False,
        env=os.environ | {"COLUMNS": "120"},
    )
    figures = [
        re.search(rf"{words}\D*?│\s*(\d+) (?:ms|MiB)", done.stdout)
        for words in ("alert received, p50", "alert received, p99", "memory of the node")
    ]
    if done.returncode or None in figures:
        print(
            f"the street was not played to its end: {done.stderr.strip()[-200:]}", file=sys.stderr
        )
        return None
    p50, p99, memory = (float(found[1]) for found in figures if found)
    return Street(p50, p99, memory)


def _nobody(sighting: Sighting, watchlist: Watchlist) -> None:
    """Random lists hold nobody; an alert would be a bug of the bench."""
    raise AssertionError(f"{sighting.match.subject} on {watchlist.list_id}")


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
