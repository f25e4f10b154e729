"""A video device read by a thread of its own, because its driver may block for ten seconds.

OpenCV's V4L2 backend waits for a frame for as long as a variable of the environment said when the
process began, so a time-out of ours can only be kept by waiting for somebody who waits.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

import cv2

from appliance.errors import CameraError
from appliance.interfaces import Clock
from appliance.types import Image


class Grabber(Protocol):
    """What of cv2.VideoCapture is used here."""

    def grab(self) -> bool:
        """Wait for the next frame; False when the device is gone."""

    def retrieve(self) -> tuple[bool, Any]:
        """Decode the frame grabbed last, (h, w, 3) uint8 BGR."""

    def release(self) -> None:
        """Close the device."""


class Device:
    """Frames of a device, never older than the call that asks for one.

    Args:
        name: for messages.
        grabber: used by this device's thread only.
        clock: CLOCK_BOOTTIME.

    Attributes:
        grabbed: frames that the device delivered.
    """

    def __init__(self, name: str, grabber: Grabber, clock: Clock) -> None:
        self._name, self._grabber, self._clock = name, grabber, clock
        self._changed = threading.Condition()
        self._asked = self._closing = self._gone = False
        self._ready: tuple[int, int, Image] | None = None
        self.grabbed = 0
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    def read(self, timeout_s: float) -> tuple[int, int, Image]:
        """The next frame: its number from 0, CLOCK_BOOTTIME in nanoseconds, BGR; the caller's own.

        Raises:
            CameraError: the device is gone, or sent nothing within timeout_s.
        """
        with self._changed:
            self._asked = True
            self._changed.wait_for(lambda: self._ready is not None or self._gone, timeout_s)
            self._asked = False
            ready, self._ready = self._ready, None
            if ready is not None:
                return ready
            if self._gone:
                raise CameraError(f"{self._name}: the device sends no more frames")
            raise CameraError(f"{self._name}: no frame within {timeout_s} s")

    def close(self, timeout_s: float = 2.0) -> None:
        """End the thread, which closes the device; one that is stuck in its driver is left."""
        with self._changed:
            self._closing = True
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._closing and self._grabber.grab():
                self._deliver(self._clock.boot_ns())
        except cv2.error:
            pass  # as good as unplugged: read() says so
        finally:
            self._grabber.release()
            with self._changed:
                self._gone = True
                self._changed.notify_all()

    def _deliver(self, boot_ns: int) -> None:
        with self._changed:
            number = self.grabbed
            self.grabbed += 1
            if not self._asked:
                return
            decoded, image = self._grabber.retrieve()
            if decoded:
                self._asked = False
                self._ready = number, boot_ns, image
                self._changed.notify_all()
