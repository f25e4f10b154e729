"""A picture file to pixels, however it was made to hurt.

Enters: a path. Leaves: RGB upright by its EXIF orientation, of bounded size, and its SHA-256.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import cv2
import numpy as np

from appliance.errors import PhotoError
from appliance.types import Image

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 100_000_000
"""Decoded, 300 MB: a few kilobytes can ask for many gigabytes."""
MAX_SIDE_PX = 2048
"""Larger pictures are reduced: the detector sees far fewer, and the crop is 112 pixels wide."""

_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame header; the three others define tables."""


def fingerprint(path: Path) -> tuple[bytes, bytes]:
    """A file's bytes and their SHA-256.

    Raises:
        PhotoError: unreadable or too long; names the file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as e:
        raise PhotoError(f"{path}: cannot be read: {e.strerror}") from e
    if len(content) > MAX_BYTES:
        raise PhotoError(f"{path}: a picture file may have {MAX_BYTES} bytes, this one has more")
    return content, hashlib.sha256(content).digest()


def decode(content: bytes, path: Path) -> Image:
    """The pixels.

    Args:
        content: of the file.
        path: for the message only.

    Raises:
        PhotoError: not a picture, or too many pixels.
    """
    pixels = declared_pixels(content)
    if pixels is not None and pixels > MAX_PIXELS:
        raise PhotoError(f"{path}: {pixels} pixels, at most {MAX_PIXELS} are decoded")
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as e:
        raise PhotoError(f"{path}: not a picture that can be decoded") from e
    if decoded is None:
        raise PhotoError(f"{path}: not a picture that can be decoded")
    scale = MAX_SIDE_PX / max(decoded.shape[:2])
    if scale < 1.0:
        size = [max(1, round(side * scale)) for side in decoded.shape[1::-1]]
        decoded = cv2.resize(decoded, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(decoded, np.uint8)


def declared_pixels(content: bytes) -> int | None:
    """What a PNG or JPEG header says, None for anything else: OpenCV bounds that by 2^30."""
    if content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) >= 24:  # noqa: PLR2004 - the header
        width, height = struct.unpack(">II", content[16:24])
        return int(width * height)
    if content[:2] == b"\xff\xd8":
        return _jpeg_pixels(content)
    return None


def _jpeg_pixels(content: bytes) -> int | None:
    """Walk the segments to the frame header (ITU T.81, B.1.1)."""
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:  # noqa: PLR2004 - a marker's first byte
        marker = content[at + 1]
        if marker in _JPEG_SIZES:
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return int(width * height)
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None
