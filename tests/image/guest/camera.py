"""Inside the guest, as its only program: the Pi's camera driver over libcamera's virtual camera.

The pixels are NV12, the only ones that this camera gives. Two things of picamera2 are overridden:
its allocator (there is no dma-heap here), and its search for raw modes (the camera has none).
Leaves /mnt/results/camera.json; run_camera.py judges.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import picamera2
from picamera2.allocators import LibcameraAllocator

from appliance.camera.picamera import Picamera
from appliance.errors import CameraError

SIZE, FPS, FRAMES = (640, 480), 10.0, 30


class Virtual(picamera2.Picamera2):  # type: ignore[misc]  # it has no types
    """picamera2 as it is, for a camera that is none of a Pi's."""

    def __init__(self, camera_num: int = 0) -> None:
        super().__init__(camera_num, allocator=object())

    def _get_raw_modes(self) -> list[dict[str, Any]]:
        return [{"format": "SRGGB10_CSI2P", "size": SIZE}]

    def configure(self, camera_config: Any) -> Any:
        """With buffers that libcamera itself allocates."""
        self.allocator = LibcameraAllocator(self.camera)
        return super().configure(camera_config)


def age_ms(boot_ns: int) -> float:
    """Since an exposure; negative if its clock is another."""
    return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - boot_ns) / 1e6


def main() -> None:
    """Look at everything, one after the other."""
    picamera2.Picamera2 = Virtual
    seen: dict[str, Any] = {}
    into = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    began_s = time.monotonic()
    camera = Picamera(size=SIZE, fps=FPS, pixels="NV12")
    frame = camera.read(into, 10.0)
    seen["first frame after s"] = round(time.monotonic() - began_s, 2)
    seen["brightness of the bars"] = sorted({int(value) for value in into[240, ::80].mean(axis=1)})
    frames = [(frame.sequence, frame.boot_ns)]
    ages = []
    for _ in range(FRAMES):
        frame = camera.read(into, 10.0)
        ages.append(age_ms(frame.boot_ns))
        frames.append((frame.sequence, frame.boot_ns))
    seen["in order"] = frames == sorted(set(frames))
    seen["accounted for"] = frames[-1][0] - frames[0][0] == FRAMES + camera.dropped
    seen["age ms, least and most"] = [round(min(ages)), round(max(ages))]
    seen["the sensor's memory before and after"] = left_behind(camera, into)
    held = _all_buffers(camera._camera)
    seen["buffers held"] = len(held)
    began_s = time.monotonic()
    try:
        camera.read(into, 1.0)
    except CameraError as e:
        seen["silent sensor"], seen["told after s"] = str(e), round(time.monotonic() - began_s, 2)
    began_s = time.monotonic()
    camera.__exit__(None, None, None)
    seen["closed after s"] = round(time.monotonic() - began_s, 2)
    Path("/mnt/results/camera.json").write_text(json.dumps(seen, indent=1), encoding="utf-8")


def left_behind(camera: Picamera, into: np.ndarray) -> tuple[bool, bool]:
    """Whether there is anything in the sensor's memory when a frame is read, and afterwards."""
    found: list[bool] = []

    class Watched(picamera2.MappedArray):  # type: ignore[misc]  # it has no types
        """Looks into the buffer when the driver has got it and when it lets go of it."""

        def __enter__(self) -> Any:
            mapped = super().__enter__()
            found.append(bool(self.array.any()))
            return mapped

        def __exit__(self, *why: object) -> None:
            found.append(bool(self.array.any()))
            super().__exit__(*why)

    camera._mapped = Watched
    camera.read(into, 10.0)
    return found[0], found[1]


def _all_buffers(vendor: Any) -> list[Any]:
    """Every buffer that there is: without one, a camera is as silent as a dead one."""
    held = []
    while True:
        try:
            held.append(vendor.capture_request(wait=3.0))
        except TimeoutError:
            return held


if __name__ == "__main__":
    main()
