"""Capture: on while wanted and lit, newest frame only, every buffer erased and given back."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import pytest

from appliance.errors import CameraError, EndOfStreamError
from appliance.services.capture import Capture
from appliance.system.clock import SimulatedClock
from appliance.system.erasure import FramePool, Ledger
from appliance.system.worker import Latest
from appliance.types import Frame, Image

SIZE = (16, 12)


class FilmCamera:
    """White frames; may come to an end or break."""

    def __init__(self, clock: SimulatedClock, frames: int = 1000) -> None:
        self.clock, self.left = clock, frames
        self.broken = self.bug = self.closed = False
        self.dropped = 0
        self.sequence = 0

    @property
    def size(self) -> tuple[int, int]:
        return SIZE

    def read(self, into: Image, timeout_s: float) -> Frame:
        if self.broken:
            raise CameraError(f"no frame within {timeout_s} s")
        if self.left == 0:
            raise EndOfStreamError("over")
        self.left -= 1
        self.sequence += 1
        into.fill(255)
        if self.bug:
            raise ZeroDivisionError
        return Frame(self.sequence, self.clock.boot_ns(), into)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closed = True


class Studio:
    def __init__(self, *, frames: int = 1000, lossless: bool = False) -> None:
        self.clock = SimulatedClock()
        self.pool, self.ledger = FramePool(3, SIZE), Ledger()
        self.slot: Latest[Frame] = Latest()
        self.stop = threading.Event()
        self.wanted = self.lamp = True
        self.told: list[bool] = []
        self.cameras: list[FilmCamera] = []
        self.frames = frames
        self.capture = Capture(
            open_camera=self._open,
            wanted=lambda: self.wanted,
            switched=self._switched,
            pool=self.pool,
            slot=self.slot,
            ledger=self.ledger,
            clock=self.clock,
            stop=self.stop,
            timeout_s=0.05,
            lossless=lossless,
        )

    def _open(self) -> FilmCamera:
        assert self.told[-1], "the camera was opened before its lamp was lit"
        self.cameras.append(FilmCamera(self.clock, self.frames))
        return self.cameras[-1]

    def _switched(self, on: bool) -> bool:  # noqa: FBT001 - the seam's own shape
        self.told.append(on)
        return self.lamp


def test_the_newest_frame_wins_and_the_other_is_erased() -> None:
    studio = Studio()
    for _ in range(3):
        studio.capture.step()
    frame = studio.slot.get(0)
    assert frame is not None
    assert frame.sequence == 3
    assert studio.capture.dropped == studio.capture.overrun == 2
    assert studio.pool.lent == 1
    studio.capture.erase(frame)
    assert studio.pool.lent == 0
    assert not frame.image.any()


def test_a_camera_whose_lamp_stays_dark_is_not_opened() -> None:
    studio = Studio()
    studio.lamp = False
    studio.stop.set()  # no waiting
    studio.capture.step()
    assert not studio.cameras
    studio.lamp = True
    studio.capture.step()
    assert len(studio.cameras) == 1


def test_the_camera_is_closed_before_its_lamp_goes_dark() -> None:
    studio = Studio()
    studio.capture.step()
    studio.wanted = False
    studio.stop.set()
    studio.capture.step()
    assert studio.cameras[0].closed
    assert studio.told == [True, False]
    assert studio.capture.since_ns is None


def test_a_recording_that_is_over_gives_its_buffer_back() -> None:
    studio = Studio(frames=0)
    studio.capture.step()
    assert studio.capture.ended
    assert studio.pool.lent == 0
    studio.stop.set()
    studio.capture.step()
    assert len(studio.cameras) == 1


def test_a_camera_that_fails_is_an_error_and_gives_its_buffer_back() -> None:
    studio = Studio()
    studio.capture.step()
    studio.cameras[0].broken = True
    with pytest.raises(CameraError):
        studio.capture.step()
    assert studio.pool.lent == 1  # the one in the slot


def test_a_driver_that_fails_in_a_way_of_its_own_leaves_no_picture_behind() -> None:
    studio = Studio()
    studio.capture.step()
    studio.cameras[0].bug = True
    with pytest.raises(ZeroDivisionError):
        studio.capture.step()
    assert studio.pool.lent == 1  # the one in the slot


def test_a_lossless_source_waits_for_the_reader() -> None:
    studio = Studio(lossless=True)
    studio.capture.step()
    reader = threading.Thread(target=studio.capture.step)
    reader.start()
    first = studio.slot.get(1.0)
    reader.join()
    second = studio.slot.get(1.0)
    assert first is not None
    assert second is not None
    assert (first.sequence, second.sequence) == (1, 2)
    assert studio.capture.dropped == 0
