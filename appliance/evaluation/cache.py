"""What was found on pictures that were looked at before: an interrupted evaluation goes on.

Enters and leaves: Samples, by the picture's SHA-256 and the id of the pipeline that looked at it.
Vectors are biometric data: the file is made for its owner only, outside the project, and
`picket evaluate --cache` says where. It holds no picture and no name.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from appliance.errors import EvaluationError
from appliance.types import Quality, Vector

COMMIT_EVERY = 64


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """What one picture gave.

    Attributes:
        sha256: of the file; None if it could not be read.
        faces: how many were found.
        vector: of the chosen face; None without one.
        quality: of the chosen face; None without one.
        failure: why there is no vector, "" if there is one.
    """

    sha256: bytes | None
    faces: int
    vector: Vector | None
    quality: Quality | None
    failure: str


class Cache:
    """A file of samples. Used by one thread.

    Args:
        path: of the file; made if missing.
        pipeline: names everything that a sample depends on but the picture.

    Raises:
        EvaluationError: it cannot be opened, or is something else.
    """

    def __init__(self, path: Path, *, pipeline: str) -> None:
        self._pipeline, self._pending = pipeline, 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path)
            self._db.execute(
                "create table if not exists samples (pipeline text, sha256 blob, faces int,"
                " vector blob, eye real, sharpness real, light real, turn real, refusal text,"
                " failure text, primary key (pipeline, sha256)) without rowid"
            )
        except (OSError, sqlite3.Error) as e:
            raise EvaluationError(f"{path}: cannot be used as a cache: {e}") from e

    def get(self, sha256: bytes) -> Sample | None:
        """A picture's sample, None if it was not looked at."""
        row = self._db.execute(
            "select faces, vector, eye, sharpness, light, turn, refusal, failure from samples"
            " where pipeline = ? and sha256 = ?",
            (self._pipeline, sha256),
        ).fetchone()
        if row is None:
            return None
        faces, vector, eye, sharpness, light, turn, refusal, failure = row
        if vector is None:
            return Sample(sha256, faces, None, None, failure)
        quality = Quality(eye, sharpness, light, turn, refusal)
        return Sample(sha256, faces, np.frombuffer(vector, np.float32), quality, failure)

    def put(self, sample: Sample) -> None:
        """Keep a sample that has a fingerprint; at most COMMIT_EVERY are lost by a power cut."""
        if sample.sha256 is None:
            return
        quality = sample.quality
        measures = (
            (None,) * 5
            if quality is None
            else (
                quality.eye_distance_px,
                quality.sharpness,
                quality.light,
                quality.turn,
                quality.refusal,
            )
        )
        vector = None if sample.vector is None else sample.vector.astype(np.float32).tobytes()
        self._db.execute(
            "insert or replace into samples values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self._pipeline, sample.sha256, sample.faces, vector, *measures, sample.failure),
        )
        self._pending += 1
        if self._pending >= COMMIT_EVERY:
            self._db.commit()
            self._pending = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Keep what was found so far, also when interrupted."""
        self._db.commit()
        self._db.close()
