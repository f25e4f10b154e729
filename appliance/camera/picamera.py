"""A Raspberry Pi's camera through picamera2 (libcamera).

Written from picamera2's manual and issues (numbers below); it has not run on hardware yet. Its
contract test is tests/contracts/test_camera.py with the marker `camera`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np

from appliance.errors import CameraError
from appliance.types import Frame, Image

_BUFFERS = 3
"""One at the sensor, one in flight, one being copied. More cost CMA memory, which a Pi runs out
of (picamera2 #972); fewer and the sensor waits."""


class Picamera:
    """The newest frame of a Pi's camera, copied once.

    Args:
        size: (width, height) in pixels; a width that is a multiple of 64 has no padded rows, so
            that the mapped array is the sensor's buffer and not a copy of it.
        fps: frames per second asked of the sensor.
        camera_num: which camera, where there are two.

    Raises:
        CameraError: picamera2 is not installed, there is no such camera, or it is in use.
    """

    def __init__(self, *, size: tuple[int, int], fps: float, camera_num: int = 0) -> None:
        try:  # here, because importing it opens devices
            from picamera2 import MappedArray, Picamera2
        except ImportError as e:
            raise CameraError(
                f"picamera2 cannot be imported ({e}): install python3-picamera2 and make the"
                " environment with --system-site-packages"
            ) from e
        self._size, self._mapped = size, MappedArray
        self._period_ns = round(1e9 / fps)
        self._last_ns: int | None = None
        self._sequence = 0
        self._dropped = 0
        period_us = round(1e6 / fps)
        self._camera: Any = None
        try:
            self._camera = Picamera2(camera_num)
            self._camera.configure(
                self._camera.create_video_configuration(
                    # picamera2 names the channels from the high byte down: its "BGR888" has
                    # the bytes R, G, B in memory, which is our Image.
                    main={"size": size, "format": "BGR888"},
                    buffer_count=_BUFFERS,
                    queue=False,  # True may hand over a frame from before the call
                    controls={"FrameDurationLimits": (period_us, period_us)},
                )
            )
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
        return self._dropped

    def read(self, into: Image, timeout_s: float) -> Frame:
        try:
            # Always with a limit: a sensor that died blocks for ever otherwise (picamera2 #1090).
            request = self._camera.capture_request(wait=timeout_s)
        except (TimeoutError, RuntimeError, OSError) as e:
            raise CameraError(f"camera: no frame within {timeout_s} s: {e}") from e
        try:
            boot_ns = int(request.get_metadata()["SensorTimestamp"])
            with self._mapped(request, "main") as mapped:
                np.copyto(into, mapped.array)
                mapped.array.fill(0)  # the sensor's own memory forgets it too
        finally:
            request.release()  # one of few buffers: back at once
        self._count(boot_ns)
        return Frame(sequence=self._sequence, boot_ns=boot_ns, image=into)

    def _count(self, boot_ns: int) -> None:
        """Number the frame by its exposure: periods since the last one, less one, were missed."""
        if self._last_ns is not None:
            periods = max(1, round((boot_ns - self._last_ns) / self._period_ns))
            self._sequence += periods
            self._dropped += periods - 1
        self._last_ns = boot_ns

    def _close(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None
