from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.camera.device import Device
from appliance.camera.fit import fit
from appliance.camera.pace import Pace
from appliance.camera.recorded import RecordedCamera
from appliance.errors import CameraError
from appliance.system.clock import SimulatedClock
from appliance.types import Image

SIZE = (160, 90)
LONG_S = 10.0
RED = (200, 30, 20)


def camera(source: Path) -> RecordedCamera:
    return RecordedCamera(source, size=SIZE, clock=SimulatedClock(), pace="flat-out", fps=4.0)


def buffer() -> Image:
    return np.full((SIZE[1], SIZE[0], 3), 255, np.uint8)


def clip(path: Path, frames: int = 6, size: tuple[int, int] = (64, 64)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, size)
    for _ in range(frames):
        writer.write(np.full((size[1], size[0], 3), RED[::-1], np.uint8))
    writer.release()
    return path


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "no.mp4", Path("/dev/video987")):
        with pytest.raises(CameraError, match=f"{missing}: no such"):
            camera(missing)


@pytest.mark.parametrize("junk", [b"", b"not a clip" * 100, bytes(range(256)) * 40])
def test_junk_is_named(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.mp4"
    path.write_bytes(junk)
    with pytest.raises(CameraError, match=r"junk\.mp4: (not a clip|has no frame)"):
        camera(path).read(buffer(), LONG_S)


def test_ffmpeg_and_opencv_print_nothing_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "junk.mp4"
    path.write_bytes(b"not a clip")
    program = f"""
from appliance.camera.recorded import RecordedCamera
from appliance.errors import CameraError
from appliance.system.clock import SystemClock
try:
    RecordedCamera({str(path)!r}, size=(160, 90), clock=SystemClock())
except CameraError as e:
    print(e)
"""
    # A process of its own: whoever uses FFmpeg first in a process sets how much it prints.
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stderr == ""
    assert ran.stdout == f"{path}: not a clip that can be decoded\n"


def play(path: Path) -> int:
    """Frames until a CameraError, of which EndOfStreamError is one."""
    frames = 0
    try:
        with camera(path) as opened:
            while True:
                opened.read(buffer(), LONG_S)
                frames += 1
    except CameraError:
        return frames


def test_a_whole_clip_plays_every_frame(tmp_path: Path) -> None:
    assert play(clip(tmp_path / "whole.mp4")) == 6


@given(cut=st.floats(min_value=0, max_value=0.99))
def test_a_truncated_clip_plays_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: float
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = clip(folder / "whole.mp4").read_bytes()
    path = folder / "cut.mp4"
    path.write_bytes(whole[: int(len(whole) * cut)])
    played = play(path)
    assert played <= 6


def test_a_fifo_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(CameraError, match="no such clip"):
        camera(tmp_path / "fifo")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture", encoding="ascii")
    with pytest.raises(CameraError, match=f"{tmp_path}: holds no picture"):
        camera(tmp_path)


def test_a_picture_that_cannot_be_decoded_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 and then nothing")
    with pytest.raises(CameraError, match=r"bad\.jpg: not a picture"), camera(tmp_path) as opened:
        opened.read(buffer(), LONG_S)
    assert capfd.readouterr() == ("", "")


def test_pictures_are_shown_in_order_with_black_between(tmp_path: Path) -> None:
    for name, tone in (("b.png", 200), ("a.png", 100)):
        cv2.imwrite(str(tmp_path / name), np.full((90, 160, 3), tone, np.uint8))
    with camera(tmp_path) as opened:  # 4 frames per second: 4 of each picture, 4 black
        tones = [int(opened.read(buffer(), LONG_S).image.max()) for _ in range(16)]
    assert tones == [100] * 4 + [0] * 4 + [200] * 4 + [0] * 4


def test_colours_are_rgb_and_margins_are_black(tmp_path: Path) -> None:
    with camera(clip(tmp_path / "square.mp4")) as opened:
        image = opened.read(buffer(), LONG_S).image
    assert np.abs(image[45, 80].astype(int) - RED).max() < 12
    assert not image[:, :34].any()
    assert not image[:, 126:].any()


def test_the_decoded_frame_is_overwritten_before_read_returns(tmp_path: Path) -> None:
    with camera(clip(tmp_path / "clip.mp4")) as opened:
        assert opened.read(buffer(), LONG_S).image.any()
        assert not opened._recording._bgr.any()  # type: ignore[union-attr]  # it is a _Clip


@given(
    w=st.integers(1, 400), h=st.integers(1, 400), width=st.integers(16, 200),
    height=st.integers(16, 200),
)  # fmt: skip
def test_any_picture_fits_whole_and_undistorted(w: int, h: int, width: int, height: int) -> None:
    into = np.full((height, width, 3), 77, np.uint8)
    fit(np.full((h, w, 3), 255, np.uint8), into)
    rows, columns = into.any(axis=(1, 2)), into.any(axis=(0, 2))
    assert set(np.unique(into)) <= {0, 255}
    assert rows.all() or columns.all()
    scale = min(width / w, height / h)
    assert abs(columns.sum() - max(1, w * scale)) <= 1
    assert abs(rows.sum() - max(1, h * scale)) <= 1


@given(st.lists(st.floats(min_value=0, max_value=3), max_size=30))
def test_in_real_time_every_frame_is_shown_or_dropped_and_none_early(waits: list[float]) -> None:
    clock = SimulatedClock()
    pace = Pace(fps=12.5, clock=clock, pace="realtime", wait=clock.advance)
    for shown, wait in enumerate(waits, start=1):
        clock.advance(wait)
        number, boot_ns = pace.next(1.0)
        assert number + 1 == shown + pace.dropped
        assert 0 <= clock.boot_ns() - boot_ns < 80_000_001


class FakeGrabber:
    """A device whose frames come when the test says so."""

    def __init__(self) -> None:
        self.frames = threading.Semaphore(0)
        self.unplugged = self.released = False
        self.given: list[Image] = []
        self.count = 0

    def grab(self) -> bool:
        self.frames.acquire()
        self.count += 1
        return not self.unplugged

    def retrieve(self) -> tuple[bool, Image]:
        self.given.append(np.full((90, 160, 3), self.count, np.uint8))
        return True, self.given[-1]

    def release(self) -> None:
        self.released = True

    def unplug(self) -> None:
        self.unplugged = True
        self.frames.release()


def until(device: Device, *, grabbed: int) -> None:
    """Wait until the device's thread has taken so many frames."""
    while device.grabbed < grabbed:
        threading.Event().wait(0.001)


def test_a_device_gives_the_frame_after_the_call_and_counts_the_ones_before() -> None:
    grabber = FakeGrabber()
    device = Device("/dev/video0", grabber, SimulatedClock(boot_ns=7))
    grabber.frames.release(3)
    until(device, grabbed=3)
    threading.Timer(0.02, grabber.frames.release).start()
    number, boot_ns, image = device.read(LONG_S)
    assert (number, boot_ns, int(image[0, 0, 0])) == (3, 7, 4)
    assert len(grabber.given) == 1  # nobody asked for the others: they were never decoded
    grabber.unplug()
    device.close()


def test_a_silent_device_is_an_error_in_time() -> None:
    grabber = FakeGrabber()
    device = Device("/dev/video0", grabber, SimulatedClock())
    with pytest.raises(CameraError, match=r"/dev/video0: no frame within 0\.02 s"):
        device.read(0.02)
    grabber.unplug()
    device.close()


def test_an_unplugged_device_is_an_error_and_is_closed() -> None:
    grabber = FakeGrabber()
    device = Device("/dev/video0", grabber, SimulatedClock())
    grabber.unplug()
    for _ in range(2):
        with pytest.raises(CameraError, match="/dev/video0: the device sends no more frames"):
            device.read(LONG_S)
    device.close()
    assert grabber.released


def test_closing_does_not_wait_for_a_driver_that_is_stuck() -> None:
    grabber = FakeGrabber()
    device = Device("/dev/video0", grabber, SimulatedClock())
    device.close(timeout_s=0.01)
    assert not grabber.released
    grabber.unplug()
    device.close()
    assert grabber.released


class BrokenGrabber(FakeGrabber):
    def grab(self) -> bool:
        raise cv2.error("VIDIOC_DQBUF")


def test_an_error_of_the_driver_is_as_good_as_unplugged() -> None:
    with pytest.raises(CameraError, match="sends no more frames"):
        Device("/dev/video0", BrokenGrabber(), SimulatedClock()).read(LONG_S)


@pytest.mark.parametrize("nbytes", [0, 1, 16 * 12 * 3 - 1, 16 * 12 * 3 + 1])
def test_raw_frames_of_another_size_are_named(tmp_path: Path, nbytes: int) -> None:
    path = tmp_path / "clip.rgb"
    path.write_bytes(bytes(nbytes))
    with pytest.raises(CameraError, match=r"clip\.rgb.*16 x 12"):
        RecordedCamera(path, size=(16, 12), clock=SimulatedClock())


def test_raw_frames_are_read_into_the_callers_buffer(tmp_path: Path) -> None:
    path = tmp_path / "clip.rgb"
    path.write_bytes(bytes(range(256)) * 9)  # 4 frames of 16 x 12
    into = np.zeros((12, 16, 3), np.uint8)
    with RecordedCamera(path, size=(16, 12), clock=SimulatedClock(), pace="flat-out") as camera:
        frame = camera.read(into, 1.0)
    assert frame.image is into
    assert into.tobytes() == (bytes(range(256)) * 9)[: into.nbytes]
