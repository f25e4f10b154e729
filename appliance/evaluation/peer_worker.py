"""Other people's work on the same pictures: run by path, in the peers' own environment.

    .venv-peers/bin/python appliance/evaluation/peer_worker.py TASK PEER IN OUT [--weights DIR]

task     IN                                     OUT
embed    text file, one picture's path a line   npz: `found` (n,) bool, `vectors` (n, dim)
detect   the same                               npz: `faces` (n,) int, `boxes` (m, 5): picture, box
speed    npz of arrays of frames                JSON: per array ms per frame, faces; peak RSS

It imports nothing of Picket, whose environment is another one, and one peer per process, so that
peak memory is the peer's. Pictures are RGB. `embed` takes the face nearest to the centre of each
picture, as picket evaluate does, and goes on where it was interrupted.
"""

from __future__ import annotations

# ruff: noqa: ANN401 - peers come without types, and this environment without ours
import argparse
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Image = Any
Detect = Callable[[Image], list[tuple[float, float, float, float]]]
"""A picture to boxes x1 y1 x2 y2 in its pixels."""

_SAVE_EVERY = 200
_THREADS = 2
_LEAST_FRAMES, _SET_S = 3, 8.0
"""A set of frames is timed for so long at most, but on so many frames at least."""
_LEAST_SCORE = 0.5
"""Of a peer's own score; MediaPipe's default."""


class Dlib:
    """The face_recognition pipeline: HOG, 5 points, ResNet of 128 numbers. One thread, as it is."""

    dim = 128

    def __init__(self, weights: Path | None) -> None:
        del weights
        warnings.filterwarnings("ignore", category=UserWarning)
        import face_recognition

        self._api = face_recognition

    def detect(self, image: Image) -> list[tuple[float, float, float, float]]:
        found = self._api.face_locations(image, number_of_times_to_upsample=1, model="hog")
        return [(left, top, right, bottom) for top, right, bottom, left in found]

    def embed(self, image: Image, box: tuple[float, float, float, float]) -> Any:
        left, top, right, bottom = (round(x) for x in box)
        return self._api.face_encodings(image, [(top, right, bottom, left)], model="small")[0]


class Yunet:
    """OpenCV's FaceDetectorYN at the picture's own size. Its embedder's weights are not here."""

    dim = 0
    file = "yunet_n_640_640.onnx"  # OpenCV takes it at any size; it refuses the dynamic one
    scale = 1.0

    def __init__(self, weights: Path | None) -> None:
        if weights is None or not (weights / self.file).is_file():
            raise SystemExit(f"absent: {self.file} (set PICKET_PEERS to the folder that holds it)")
        self._net = cv2.FaceDetectorYN.create(
            str(weights / self.file), "", (320, 320), _LEAST_SCORE, 0.3, 500
        )

    def detect(self, image: Image) -> list[tuple[float, float, float, float]]:
        small = cv2.resize(image, None, fx=self.scale, fy=self.scale, interpolation=cv2.INTER_AREA)
        self._net.setInputSize((small.shape[1], small.shape[0]))
        _, found = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        rows = [] if found is None else found[:, :4] / self.scale
        return [(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in rows]


class YunetHalf(Yunet):
    """The same on the picture at half its size, as our detector sees 1280 x 720."""

    scale = 0.5


class Mediapipe:
    """MediaPipe's face detection for faces up to 5 m away (its full-range model)."""

    dim = 0

    def __init__(self, weights: Path | None) -> None:
        del weights
        os.environ.setdefault("GLOG_minloglevel", "2")
        import mediapipe

        self._api = mediapipe.solutions.face_detection.FaceDetection(
            model_selection=1, min_detection_confidence=_LEAST_SCORE
        )

    def detect(self, image: Image) -> list[tuple[float, float, float, float]]:
        height, width = image.shape[:2]
        found = self._api.process(image).detections or []
        boxes = [d.location_data.relative_bounding_box for d in found]
        return [
            (
                b.xmin * width,
                b.ymin * height,
                (b.xmin + b.width) * width,
                (b.ymin + b.height) * height,
            )
            for b in boxes
        ]


PEERS = {"dlib": Dlib, "yunet": Yunet, "yunet-half": YunetHalf, "mediapipe": Mediapipe}


def central(
    boxes: list[tuple[float, float, float, float]], shape: tuple[int, ...]
) -> tuple[float, float, float, float]:
    """The box whose centre is nearest to the picture's."""
    middle = np.array([shape[1], shape[0]]) / 2

    def distance(box: tuple[float, float, float, float]) -> float:
        return float(np.hypot(*(np.array([box[0] + box[2], box[1] + box[3]]) / 2 - middle)))

    return min(boxes, key=distance)


def embed(peer: Any, listing: Path, out: Path) -> None:
    """A vector per picture; saved every so often, so that an interruption costs little."""
    paths = listing.read_text(encoding="utf-8").splitlines()
    partial = out.with_suffix(".partial.npz")
    done: dict[str, Any] = {}
    if partial.is_file():
        with np.load(partial) as saved:
            done = dict(zip(saved["paths"].tolist(), saved["vectors"], strict=True))
    for count, path in enumerate(paths, 1):
        if path not in done:
            done[path] = one(peer, read(path))
        if count % _SAVE_EVERY == 0:
            print(json.dumps({"done": count, "of": len(paths)}), flush=True)
            save(partial, paths=np.array(list(done)), vectors=np.array(list(done.values())))
    vectors = np.array([done[path] for path in paths], np.float32)
    save(out, found=~np.isnan(vectors).any(axis=1), vectors=vectors)
    partial.unlink(missing_ok=True)


def one(peer: Any, image: Image | None) -> Any:
    """The vector of the face in the middle, NaN without one."""
    boxes = [] if image is None else peer.detect(image)
    if image is None or not boxes:
        return np.full(peer.dim, np.nan)
    return peer.embed(image, central(boxes, image.shape))


def detect(peer: Any, listing: Path, out: Path) -> None:
    """All boxes of each picture."""
    paths = listing.read_text(encoding="utf-8").splitlines()
    faces, rows = np.zeros(len(paths), np.int64), []
    for index, path in enumerate(paths):
        image = read(path)
        boxes = [] if image is None else peer.detect(image)
        faces[index] = len(boxes)
        rows += [(index, *box) for box in boxes]
        if (index + 1) % _SAVE_EVERY == 0:
            print(json.dumps({"done": index + 1, "of": len(paths)}), flush=True)
    save(out, faces=faces, boxes=np.array(rows, np.float32).reshape(-1, 5))


def speed(peer: Any, frames: Path, out: Path) -> None:
    """Time per frame of detecting and, where it can, embedding every face.

    `ms` is the median and `best_ms` the fastest tenth of wall clock, `cpu_ms` the same tenth of the
    time of all threads together: on a machine that does other things that is what compares.
    """
    report: dict[str, Any] = {}
    arrays = np.load(frames)
    rounds = int(arrays["rounds"])
    for name in arrays.files:
        if name == "rounds":
            continue
        batch = arrays[name]  # read here: one set at a time counts towards peak memory
        peer.detect(batch[0])  # the first call makes buffers
        times: list[float] = []
        cpu: list[float] = []
        count, first = 0, time.perf_counter()
        for frame in list(batch) * rounds:
            if len(times) >= _LEAST_FRAMES and time.perf_counter() - first > _SET_S:
                break
            began, began_cpu = time.perf_counter(), time.process_time()
            boxes = peer.detect(frame)
            if peer.dim:
                for box in boxes:
                    peer.embed(frame, box)
            times.append(time.perf_counter() - began)
            cpu.append(time.process_time() - began_cpu)
            count += len(boxes)
        report[name] = {
            "ms": 1e3 * float(np.median(times)),
            "best_ms": 1e3 * float(np.quantile(times, 0.1)),
            "cpu_ms": 1e3 * float(np.quantile(cpu, 0.1)),
            "faces": count / len(times),
        }
    report["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out.write_text(json.dumps(report), encoding="utf-8")


def read(path: str) -> Image | None:
    """RGB, or None if it is no picture."""
    bgr = cv2.imread(path, cv2.IMREAD_COLOR)
    return None if bgr is None else np.ascontiguousarray(bgr[:, :, ::-1])


def save(path: Path, **arrays: Any) -> None:
    """Whole or not at all."""
    scratch = path.with_suffix(".tmp.npz")
    np.savez(scratch, **arrays)
    scratch.replace(path)


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("task", choices=["embed", "detect", "speed"])
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(_THREADS)
    peer = PEERS[arguments.peer](arguments.weights)
    {"embed": embed, "detect": detect, "speed": speed}[arguments.task](
        peer, arguments.source, arguments.out
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
