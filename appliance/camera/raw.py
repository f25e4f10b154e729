"""A recording without compression: RGB frames one after the other, in a file that ends in .rgb.

Frames are read straight into the caller's buffer: this process never holds another copy, as with
a sensor. That makes it the source for proving that nothing else of a frame stays in memory.
"""

from __future__ import annotations

import os
from pathlib import Path

from appliance.errors import CameraError, EndOfStreamError
from appliance.types import Image

SUFFIX = ".rgb"
_CHANNELS = 3


class RawFrames:
    """Frames of one size, (height, width, 3) uint8 RGB each, without a header.

    Args:
        path: the file.
        size: (width, height) in pixels; the file has a whole number of such frames.
        loop: begin again at the end.

    Raises:
        CameraError: unreadable, empty, or of another size.
    """

    fps = 0.0
    """It does not say."""

    def __init__(self, path: Path, *, size: tuple[int, int], loop: bool) -> None:
        self._path, self._loop = path, loop
        self._frame_bytes = size[0] * size[1] * _CHANNELS
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            raise CameraError(f"{path}: {e.strerror}") from e
        self._frames, rest = divmod(os.fstat(self._file).st_size, self._frame_bytes)
        if rest or not self._frames:
            os.close(self._file)
            raise CameraError(
                f"{path}: {self._frames} frames of {size[0]} x {size[1]} and {rest} bytes more:"
                " not a recording of that size"
            )

    def show(self, number: int, into: Image) -> None:
        """Read a frame, counted over all passes."""
        if number >= self._frames and not self._loop:
            raise EndOfStreamError(f"{self._path}: played to its end")
        offset = number % self._frames * self._frame_bytes
        try:
            read = os.preadv(self._file, [into.data.cast("B")], offset)
        except OSError as e:
            raise CameraError(f"{self._path}: {e.strerror}") from e
        if read != self._frame_bytes:
            raise CameraError(f"{self._path}: frame {number} ends after {read} bytes")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
