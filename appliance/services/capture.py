"""The camera is on while there is a list to match against and its lamp is lit, else off.

Frames go from the driver into buffers of the pool and from there into a one-place slot: the
watch thread always gets the newest, and a frame that it never came to is erased here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from appliance.errors import CameraError, EndOfStreamError
from appliance.interfaces import Camera, Clock
from appliance.system.erasure import FramePool, Ledger
from appliance.system.worker import Latest
from appliance.types import Frame

log = logging.getLogger(__name__)

_POLL_S = 0.1


class Capture:
    """Camera to slot. `step` is called by one worker; the attributes may be read by any thread.

    Args:
        open_camera: makes the camera; called whenever it is switched on.
        wanted: whether there is a list to match against, and a lamp that says so.
        switched: told True before the camera is switched on and False after it is off: it
            drives the camera lamp and answers whether the lamp did as it was told. A camera
            whose lamp is not lit is not switched on.
        lossless: wait for the watch thread instead of dropping (flat-out recordings).

    Attributes:
        since_ns: CLOCK_BOOTTIME when the camera was switched on, None while it is off.
        ended: a recorded source has played to its end.
        overrun: frames taken and erased without having been processed.
    """

    def __init__(
        self,
        *,
        open_camera: Callable[[], Camera],
        wanted: Callable[[], bool],
        switched: Callable[[bool], bool],
        pool: FramePool,
        slot: Latest[Frame],
        ledger: Ledger,
        clock: Clock,
        stop: threading.Event,
        timeout_s: float,
        lossless: bool,
    ) -> None:
        self._open_camera, self._wanted, self._switched = open_camera, wanted, switched
        self._pool, self._slot, self._ledger = pool, slot, ledger
        self._clock, self._stop = clock, stop
        self._timeout_s, self._lossless = timeout_s, lossless
        self._camera: Camera | None = None
        self._dropped_before = 0
        self.since_ns: int | None = None
        self.ended = False
        self.overrun = 0

    @property
    def dropped(self) -> int:
        """Frames that the source had and that were never processed."""
        camera = self._camera
        return self._dropped_before + self.overrun + (camera.dropped if camera else 0)

    def step(self) -> None:
        """Take one frame, or wait a little while the camera is to be off."""
        if self.ended or not self._wanted():
            self.close()
            self._stop.wait(_POLL_S)
            return
        camera = self._camera or self._on()
        if camera is None:
            self._stop.wait(_POLL_S)
            return
        buffer = self._pool.take(self._timeout_s)
        try:
            frame = camera.read(buffer, self._timeout_s)
        except EndOfStreamError:
            self._pool.give_back(buffer)
            self.close()
            self.ended = True
            return
        except BaseException:  # whatever it is, what the driver has written is overwritten
            self._pool.give_back(buffer)
            raise
        self._hand_over(frame)

    def close(self) -> None:
        """Switch the camera off, if it is on."""
        if self._camera is None:
            return
        self._dropped_before += self._camera.dropped
        self._camera.__exit__(None, None, None)
        self._camera, self.since_ns = None, None
        self._switched(False)
        log.info("camera off")

    def erase(self, frame: Frame) -> None:
        """Overwrite a frame whose last use is over; the watch thread calls this too."""
        self._pool.give_back(frame.image)
        self._ledger.frame_erased(self._clock.boot_ns() - frame.boot_ns)

    def _on(self) -> Camera | None:
        """Switch the camera on; None if its lamp could not be lit."""
        if not self._switched(True):
            return None
        try:
            camera = self._open_camera().__enter__()
        except CameraError:
            self._switched(False)
            raise
        self._camera, self.since_ns = camera, self._clock.boot_ns()
        log.info("camera on: %d x %d", *camera.size)
        return camera

    def _hand_over(self, frame: Frame) -> None:
        if self._lossless:
            while not self._slot.put_wait(frame, _POLL_S):
                if self._stop.is_set():
                    self.erase(frame)
                    return
            return
        displaced = self._slot.put(frame)
        if displaced is not None:
            self.overrun += 1
            self.erase(displaced)
