"""A Raspberry Pi's camera through picamera2 (libcamera): light from the sensor, copied once.

Written from picamera2's manual, source (0.3.38) and issues (numbers below). It has run over
libcamera's virtual camera in an emulated machine (tests/image/guest/camera.py), not on a Pi yet.
Its contract test is tests/contracts/test_camera.py with the marker `camera`.

One stream only: the detector scales the very pixels that the embedder will see. A second, small
stream from the ISP would save that scaling, at the price of a second buffer to erase.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, Literal, Self

import cv2
import numpy as np
import numpy.typing as npt

from appliance.errors import CameraError
from appliance.types import Frame, Image

Pixels = Literal["BGR888", "NV12"]
"""picamera2 names the channels from the high byte down: its "BGR888" has the bytes R, G, B in
memory, which is our Image. NV12 is what libcamera's virtual camera gives, and nothing else."""

_BUFFERS = 3
"""One at the sensor, one in flight, one being copied. More cost CMA memory, which a Pi runs out
of (picamera2 #972); fewer and the sensor waits."""


class Picamera:
    """The newest frame of a Pi's camera.

    Args:
        size: (width, height) in pixels, even numbers.
        fps: frames per second asked of the sensor.
        camera_num: which camera, where there are two.
        pixels: see Pixels.

    Raises:
        CameraError: picamera2 is not installed, there is no such camera, it is in use, or it
            cannot give this size.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        fps: float,
        camera_num: int = 0,
        pixels: Pixels = "BGR888",
    ) -> None:
        try:  # here, because importing it opens devices
            from picamera2 import MappedArray, Picamera2
        except ImportError as e:
            raise CameraError(
                f"picamera2 cannot be imported ({e}): install python3-picamera2 and make the"
                " environment with --system-site-packages"
            ) from e
        self._size, self._pixels, self._mapped = size, pixels, MappedArray
        self._numbering = Numbering(period_ns=round(1e9 / fps))
        period_us = round(1e6 / fps)
        self._camera: Any = None
        try:
            self._camera = Picamera2(camera_num)
            self._camera.configure(
                self._camera.create_video_configuration(
                    main={"size": size, "format": pixels},
                    buffer_count=_BUFFERS,
                    queue=False,  # True may hand over a frame from before the call
                    controls={"FrameDurationLimits": (period_us, period_us)},
                )
            )
            self._stride = _stride(self._camera.camera_configuration()["main"], size, pixels)
            self._camera.start()
        except (RuntimeError, IndexError, OSError) as e:  # picamera2 has no errors of its own
            self._close()
            raise CameraError(f"camera {camera_num}: {e}") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    @property
    def dropped(self) -> int:
        return self._numbering.dropped

    def read(self, into: Image, timeout_s: float) -> Frame:
        try:
            # Always with a limit: a sensor that died blocks for ever otherwise (picamera2 #1090).
            # A request holds one of few buffers: it is given back at the end of this block.
            with self._camera.captured_request(wait=timeout_s) as request:
                boot_ns = int(request.get_metadata()["SensorTimestamp"])
                # The whole buffer, padding and all, so that all of it is overwritten.
                with self._mapped(request, "main", reshape=False) as mapped:
                    try:
                        unpack(mapped.array, self._stride, self._pixels, into)
                    finally:
                        mapped.array.fill(0)  # the sensor's own memory forgets it too
        except (TimeoutError, RuntimeError, OSError, KeyError) as e:
            why = str(e) or "it is silent"  # a TimeoutError says nothing
            raise CameraError(f"camera: no frame within {timeout_s} s: {why}") from e
        sequence = self._numbering.next(boot_ns)
        return Frame(sequence=sequence, boot_ns=boot_ns, image=into)

    def _close(self) -> None:
        if self._camera is None:
            return
        camera, self._camera = self._camera, None
        # A read that timed out has left its job in picamera2's queue; this is how its manual tidies
        # up before closing.
        camera.cancel_all_and_flush()
        with contextlib.suppress(RuntimeError):  # a camera that is gone cannot be given back
            camera.close()


def _stride(given: dict[str, Any], size: tuple[int, int], pixels: Pixels) -> int:
    """Bytes from one row to the next, of the stream that was asked for and no other."""
    if (tuple(given["size"]), given["format"]) != (size, pixels):
        raise OSError(f"gives {given['format']} {given['size']} where {pixels} {size} was asked")
    return int(given["stride"])


class Numbering:
    """Numbers frames by their exposure: whole periods since the last one, less one, were missed.

    Args:
        period_ns: between two exposures.

    Attributes:
        dropped: frames missed so far.
    """

    def __init__(self, *, period_ns: int) -> None:
        self._period_ns = period_ns
        self._last_ns: int | None = None
        self._sequence = 0
        self.dropped = 0

    def next(self, boot_ns: int) -> int:
        """The number of the frame exposed at that time.

        Args:
            boot_ns: CLOCK_BOOTTIME, later than the last one's.
        """
        if self._last_ns is not None:
            periods = max(1, round((boot_ns - self._last_ns) / self._period_ns))
            self._sequence += periods
            self.dropped += periods - 1
        self._last_ns = boot_ns
        return self._sequence


def unpack(buffer: npt.NDArray[np.uint8], stride: int, pixels: Pixels, into: Image) -> None:
    """Copy a sensor's buffer into an Image.

    Args:
        buffer: (n,) uint8; rows of `stride` bytes, of which the first ones are pixels. NV12 has
            half as many rows again, of interleaved chroma.
        stride: bytes from one row to the next.
        pixels: how they are laid out.
        into: (height, width, 3) uint8, overwritten.

    Raises:
        OSError: the buffer is too short for such a picture.
    """
    height, width = into.shape[:2]
    rows, row = (height * 3 // 2, width) if pixels == "NV12" else (height, width * 3)
    if buffer.size < rows * stride or stride < row:
        raise OSError(
            f"a buffer of {buffer.size} bytes in rows of {stride}"
            f" holds no {width} x {height} {pixels}"
        )
    packed = buffer[: rows * stride].reshape(rows, stride)[:, :row]  # (rows, row)
    if pixels == "NV12":
        cv2.cvtColor(packed, cv2.COLOR_YUV2RGB_NV12, dst=into)
    else:
        np.copyto(into.reshape(height, row), packed)
