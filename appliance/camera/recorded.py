"""Recordings and video devices, through OpenCV: a clip, a folder of pictures or /dev/videoN.

What is kept besides the caller's buffer: a decoded clip or device frame until it is scaled, which
is overwritten before `read` returns; and one picture of a folder while it is shown. What FFmpeg
and V4L2 hold inside themselves (reference frames, mapped buffers) is out of our reach; the
appliance's own camera is camera/picamera.py.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from appliance.camera.device import Device
from appliance.camera.fit import fit
from appliance.camera.pace import Pace, PaceName
from appliance.camera.raw import SUFFIX, RawFrames
from appliance.errors import CameraError, EndOfStreamError
from appliance.interfaces import Clock
from appliance.types import Frame, Image

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
"""What counts as a picture in a folder."""


class RecordedCamera:
    """A clip, a folder of pictures, raw frames, or a device.

    Input of any size is letterboxed into `size`; raw frames (raw.py) are of that size.

    Args:
        source: see above; "/dev/video…" is a device.
        size: (width, height) in pixels of the frames.
        clock: CLOCK_BOOTTIME.
        pace: "realtime" or "flat-out", see Pace; a device is always in real time.
        loop: begin again at the end.
        fps: asked of a device, and the pace of a folder; a clip has its own.
        picture_s: how long each picture of a folder is shown, at least one frame.
        gap_s: black between two pictures. Portraits have their faces in the same place: without
            a gap longer than the tracker's patience, two people would be one track.
        wait: sleeps for so many seconds.

    Raises:
        CameraError: not there, unreadable, or empty; names the path.
    """

    def __init__(
        self,
        source: Path | str,
        *,
        size: tuple[int, int],
        clock: Clock,
        pace: PaceName = "realtime",
        loop: bool = False,
        fps: float = 15.0,
        picture_s: float = 1.0,
        gap_s: float = 1.0,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        _silence()
        path = Path(source)
        self._size, self._handed_over = size, 0
        self._device: Device | None = None
        self._recording: _Clip | _Pictures | RawFrames | None = None
        if str(path).startswith("/dev/video"):
            self._device = _open_device(path, size, fps, clock)
            return
        if path.is_dir():
            shown, gap = max(1, round(picture_s * fps)), math.ceil(gap_s * fps)
            self._recording = _Pictures(path, shown=shown, gap=gap, loop=loop)
        elif path.suffix == SUFFIX:
            self._recording = RawFrames(path, size=size, loop=loop)
        else:
            self._recording = _Clip(path, loop=loop)
            fps = self._recording.fps or fps
        self._pace = Pace(fps=fps, clock=clock, pace=pace, wait=wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._device is not None:
            self._device.close()
        if self._recording is not None:
            self._recording.close()

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    @property
    def dropped(self) -> int:
        if self._device is not None:
            return max(0, self._device.grabbed - self._handed_over)
        return self._pace.dropped

    def read(self, into: Image, timeout_s: float) -> Frame:
        if self._recording is not None:
            number, boot_ns = self._pace.next(timeout_s)
            self._recording.show(number, into)
        elif self._device is not None:
            number, boot_ns, bgr = self._device.read(timeout_s)
            self._handed_over += 1
            fit(bgr, into)
            bgr.fill(0)
        return Frame(sequence=number, boot_ns=boot_ns, image=into)


class _Clip:
    """A video file, read forwards. `fps` is 0 where the file does not say."""

    def __init__(self, path: Path, *, loop: bool) -> None:
        if not path.is_file():  # also because opening a FIFO would wait for a writer
            raise CameraError(f"{path}: no such clip, folder or device")
        self._path, self._loop = path, loop
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise CameraError(f"{path}: not a clip that can be decoded")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else 0.0  # noqa: PLR2004 - sane
        self._bgr: Image = np.zeros((1, 1, 3), np.uint8)
        self._grabbed = self._grabbed_in_pass = 0

    def show(self, number: int, into: Image) -> None:
        """Skip to a frame, counted over all passes, and draw it."""
        while self._grabbed <= number:
            if self._capture.grab():
                self._grabbed += 1
                self._grabbed_in_pass += 1
            else:
                self._begin_again()
        decoded, bgr = self._capture.retrieve(self._bgr)  # the same memory from the second on
        if not decoded:
            raise CameraError(f"{self._path}: frame {number} cannot be decoded")
        self._bgr = np.asarray(bgr, np.uint8)
        fit(self._bgr, into)
        self._bgr.fill(0)

    def close(self) -> None:
        self._capture.release()

    def _begin_again(self) -> None:
        if self._grabbed_in_pass == 0:
            raise CameraError(f"{self._path}: has no frame that can be decoded")
        if not self._loop:
            raise EndOfStreamError(f"{self._path}: played to its end")
        self._capture.release()
        self._capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        self._grabbed_in_pass = 0


class _Pictures:
    """A folder: each picture for `shown` frames, then `gap` black ones."""

    def __init__(self, path: Path, *, shown: int, gap: int, loop: bool) -> None:
        try:
            self._paths = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        except OSError as e:
            raise CameraError(f"{path}: {e.strerror}") from e
        if not self._paths:
            raise CameraError(f"{path}: holds no picture ({' '.join(sorted(SUFFIXES))})")
        self._folder, self._shown, self._gap, self._loop = path, shown, gap, loop
        self._place = -1
        self._picture: Image = np.zeros((1, 1, 3), np.uint8)

    def show(self, number: int, into: Image) -> None:
        """Draw one frame, counted over all passes."""
        place, phase = divmod(number, self._shown + self._gap)
        if place >= len(self._paths) and not self._loop:
            raise EndOfStreamError(f"{self._folder}: all {len(self._paths)} pictures shown")
        if phase >= self._shown:
            into.fill(0)
            return
        if place != self._place:
            self._load(place)
        fit(self._picture, into)

    def close(self) -> None:
        self._picture.fill(0)

    def _load(self, place: int) -> None:
        path = self._paths[place % len(self._paths)]
        self._picture.fill(0)
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise CameraError(f"{path}: not a picture that can be decoded")
        self._picture, self._place = picture.astype(np.uint8, copy=False), place


def _open_device(path: Path, size: tuple[int, int], fps: float, clock: Clock) -> Device:
    if not path.exists():
        raise CameraError(f"{path}: no such device")
    capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise CameraError(f"{path}: not a video device, or in use by another program")
    # Motion JPEG first: uncompressed 720p exceeds what USB 2 carries at more than 10 fps.
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
    capture.set(cv2.CAP_PROP_FPS, fps)
    return Device(str(path), capture, clock)


def _silence() -> None:
    """A bad file is told by a CameraError, not by FFmpeg and OpenCV on stderr as well."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
