"""Photographs become templates. Each photograph must show exactly one good face.

Enters: pictures, one subject reference each. Leaves: one template per photograph and column: the
whole face, and the same face as it is without each part that may be hidden on a street. A
photograph that cannot be enrolled is named with the reason; nothing is guessed and no face is
chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from appliance.errors import PhotoError
from appliance.interfaces import Detector, Embedder
from appliance.types import Face, Image, Quality, Vector
from appliance.vision.align import align
from appliance.vision.quality import QualityGate
from appliance.vision.reader import COLUMNS, WHOLE, Tells, certain, open_part
from appliance.wire import NAME_MAX_CHARS

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

_NOT_IN_A_REFERENCE = re.compile(r"[^A-Za-z0-9._:@-]")
"""See wire.Name."""

_FOREGROUND = 0.25
"""A second face counts if it is at least this fraction of the largest one's width: somebody in
the far background is not a second candidate, a neighbour is."""

_MAX_BYTES = 64 * 1024 * 1024
_MAX_SIDE_PX = 2048
"""Larger pictures are reduced first: the detector sees 640 pixels at most anyway, and the crop
is 112 pixels wide."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph of one subject."""

    subject: str
    path: Path


@dataclass(frozen=True, slots=True, eq=False)
class Enrolled:
    """A photograph that became templates.

    Attributes:
        vectors: by column, each (dim,) float32 of L2 norm 1; without "whole" if the photograph
            shows a part-hidden face.
    """

    photo: Photo
    vectors: Mapping[str, Vector]
    quality: Quality


def gather(paths: Iterable[Path], subject: str | None = None) -> list[Photo]:
    """Name the subject of each photograph.

    Args:
        paths: a file is one subject, called after the file; a folder holds files, and folders
            that are one subject each, with all the photographs in them.
        subject: one reference for all of them instead.

    Raises:
        PhotoError: a path does not exist, or a folder holds no picture.
    """
    named: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            inside = list(_walk(path))
            if not inside:
                raise PhotoError(f"{path}: holds no picture ({', '.join(sorted(PICTURES))})")
            named += [(p.stem if p.parent == path else p.parent.name, p) for p in inside]
        elif path.is_file():
            named.append((path.stem, path))
        else:
            raise PhotoError(f"{path}: no such file or folder")
    if subject is not None:
        return [Photo(subject, path) for _, path in named]
    return _with_references(named)


def _with_references(named: list[tuple[str, Path]]) -> list[Photo]:
    """File names may hold what a reference may not; two names must not become one subject."""
    came_from: dict[str, str] = {}
    for name, path in named:
        reference = _NOT_IN_A_REFERENCE.sub("-", name)[:NAME_MAX_CHARS]
        if came_from.setdefault(reference, name) != name:
            raise PhotoError(
                f"{path}: '{name}' and '{came_from[reference]}' would both be subject {reference}"
            )
    return [
        Photo(_NOT_IN_A_REFERENCE.sub("-", name)[:NAME_MAX_CHARS], path) for name, path in named
    ]


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix.lower() in PICTURES:
            yield path
        elif path.is_dir():
            yield from (
                p for p in sorted(path.iterdir()) if p.is_file() and p.suffix.lower() in PICTURES
            )


class Enroller:
    """Photograph to templates, by the models that the node uses.

    Args:
        hidden: embedder for part-hidden faces; without it there is the column "whole" only.
        teller: says whether a photograph's face is hidden itself.
        accept_partial: take such a photograph for the column of what is hidden on it.
    """

    def __init__(
        self,
        *,
        detector: Detector,
        embedder: Embedder,
        gate: QualityGate,
        hidden: Embedder | None = None,
        teller: Tells | None = None,
        accept_partial: bool = False,
    ) -> None:
        self._detector, self._embedder, self._gate = detector, embedder, gate
        self._hidden, self._teller, self._accept_partial = hidden, teller, accept_partial

    def enrol(self, photo: Photo) -> Enrolled:
        """The templates of a photograph.

        Raises:
            PhotoError: unreadable, no face, two faces, or a face too poor or hidden; names the
                photo.
        """
        picture = read_picture(photo.path)
        face = self._one_face(picture, photo.path)
        crop = align(picture, face.landmarks, side=self._embedder.side)
        quality = self._gate.assess(crop, face)
        if quality.refusal is not None:
            raise PhotoError(f"{photo.path}: {quality.refusal}")
        return Enrolled(photo, self._templates(crop, photo.path), quality)

    def _templates(self, crop: Image, path: Path) -> dict[str, Vector]:
        """By column: all of them for a bare face, the one of what is hidden for another."""
        told = None if self._teller is None else self._teller.tell(crop)
        hidden = "none" if told is None or not certain(told) else told.hidden
        if hidden == "too-much":
            raise PhotoError(f"{path}: too much of the face is hidden")
        if hidden in ("lower", "eyes"):
            if not self._accept_partial or self._hidden is None:
                raise PhotoError(
                    f"{path}: the face is part-hidden ({hidden}); another photograph is needed, or"
                    " --accept-partial to find this person only when hidden in the same way"
                )
            return {hidden: open_part(crop, hidden, self._hidden, None)}
        vectors = {WHOLE: self._embedder.embed(crop)}
        if self._hidden is not None:
            vectors |= {
                part: open_part(crop, part, self._hidden, self._embedder) for part in COLUMNS
            }
        return vectors

    def _one_face(self, picture: Image, path: Path) -> Face:
        faces = self._detector.detect(picture)
        if not faces:
            raise PhotoError(f"{path}: no face found")
        widths = [float(face.box[2] - face.box[0]) for face in faces]
        close = [f for f, w in zip(faces, widths, strict=True) if w >= _FOREGROUND * max(widths)]
        if len(close) > 1:
            raise PhotoError(f"{path}: {len(close)} faces; a photograph must show one person")
        return close[0]


def read_picture(path: Path) -> Image:
    """A picture as RGB, turned upright by its EXIF orientation.

    Raises:
        PhotoError: unreadable, too large a file, or not a picture.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise PhotoError(f"{path}: {size} bytes; a photograph may have {_MAX_BYTES}")
        encoded = path.read_bytes()
    except OSError as e:
        raise PhotoError(f"{path}: cannot be read: {e.strerror}") from e
    try:
        decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as e:
        raise PhotoError(f"{path}: not a picture that can be decoded") from e
    if decoded is None:
        raise PhotoError(f"{path}: not a picture that can be decoded")
    scale = _MAX_SIDE_PX / max(decoded.shape[:2])
    if scale < 1.0:
        decoded = cv2.resize(decoded, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(decoded, np.uint8)
