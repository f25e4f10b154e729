"""The Camera seam: a clip, a folder, a scene and, where there is one, a Raspberry Pi's camera."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.camera.pace import PaceName
from appliance.camera.picamera import Picamera
from appliance.camera.recorded import RecordedCamera
from appliance.camera.scene import Scene, SceneCamera
from appliance.errors import CameraError, EndOfStreamError
from appliance.interfaces import Camera
from appliance.system.clock import SimulatedClock
from appliance.types import Image

PHOTOS = Path(__file__).resolve().parents[1] / "photos"
HAS_PICAMERA = importlib.util.find_spec("picamera2") is not None
SIZE = (320, 180)
FPS = 10.0
FRAMES = 12
LONG_S = 5.0


class Source:
    """Something of 12 frames at 10 frames per second, to be opened in different ways."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.clock = SimulatedClock()
        getattr(self, f"_make_{kind}")()

    def open(self, *, pace: PaceName = "flat-out", loop: bool = False) -> Camera:
        if self.kind == "scene":
            return SceneCamera(
                Scene.load(self.folder / "scene.toml"),
                size=SIZE, fps=FPS, clock=self.clock, pace=pace, loop=loop,
                wait=self.clock.advance,
            )  # fmt: skip
        return RecordedCamera(
            self.folder / {"clip": "clip.avi", "raw": "clip.rgb"}.get(self.kind, "pictures"),
            size=SIZE, fps=FPS, clock=self.clock, pace=pace, loop=loop,
            picture_s=0.3, gap_s=0.1, wait=self.clock.advance,
        )  # fmt: skip

    def _make_clip(self) -> None:
        writer = cv2.VideoWriter(
            str(self.folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), FPS, SIZE
        )
        for n in range(FRAMES):
            writer.write(np.full((SIZE[1], SIZE[0], 3), 20 + 15 * n, np.uint8))
        writer.release()

    def _make_raw(self) -> None:
        frames = [np.full((SIZE[1], SIZE[0], 3), 20 + 15 * n, np.uint8) for n in range(FRAMES)]
        (self.folder / "clip.rgb").write_bytes(b"".join(frame.tobytes() for frame in frames))

    def _make_folder(self) -> None:
        pictures = self.folder / "pictures"
        pictures.mkdir()
        for n in range(3):
            picture = np.full((90, 160, 3), 60 * (n + 1), np.uint8)
            cv2.imwrite(str(pictures / f"{n}.png"), picture)

    def _make_scene(self) -> None:
        (self.folder / "scene.toml").write_text(
            f'seconds = {FRAMES / FPS}\nanatomy = "{PHOTOS / "faces.toml"}"\n'
            '[[walker]]\nphoto = "astronaut.jpg"\nenters_s = 0.0\nleaves_s = 1.2\n'
            "from_x = 0.4\nto_x = 0.6\nfrom_px = 60\nto_px = 200\n",
            encoding="utf-8",
        )


@pytest.fixture(params=["clip", "raw", "folder", "scene"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    return Source(request.param, tmp_path)


@pytest.fixture(params=["clip", "raw", "folder", "scene", "picamera"])
def camera(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Camera]:
    if request.param == "picamera":
        if not HAS_PICAMERA:
            pytest.skip("picamera2 is not installed: no Raspberry Pi camera here")
        opened: Camera = Picamera(size=SIZE, fps=FPS)
    else:
        opened = Source(request.param, tmp_path).open()
    with opened:
        yield opened


def buffer() -> Image:
    return np.zeros((SIZE[1], SIZE[0], 3), np.uint8)


def read_all(camera: Camera) -> list[tuple[int, Image]]:
    frames: list[tuple[int, Image]] = []
    while True:
        try:
            frame = camera.read(buffer(), LONG_S)
        except EndOfStreamError:
            return frames
        frames.append((frame.sequence, frame.image))


def test_a_frame_is_in_the_callers_buffer(camera: Camera) -> None:
    into = buffer()
    frame = camera.read(into, LONG_S)
    assert frame.image is into
    assert camera.size == SIZE
    assert into.any()


def test_frames_are_numbered_and_timed_in_order(camera: Camera) -> None:
    frames = [camera.read(buffer(), LONG_S) for _ in range(5)]
    numbers = [frame.sequence for frame in frames]
    times = [frame.boot_ns for frame in frames]
    assert numbers == sorted(set(numbers))
    assert times == sorted(times)
    assert frames[-1].sequence - frames[0].sequence == 4 + camera.dropped


def test_flat_out_gives_every_frame_once_and_then_ends(source: Source) -> None:
    with source.open() as camera:
        assert [number for number, _ in read_all(camera)] == list(range(FRAMES))
        assert camera.dropped == 0
        with pytest.raises(EndOfStreamError):
            camera.read(buffer(), LONG_S)


def test_the_same_recording_gives_the_same_frames(source: Source) -> None:
    with source.open() as first, source.open() as second:
        for (_, a), (_, b) in zip(read_all(first), read_all(second), strict=True):
            assert np.array_equal(a, b)


def test_erasing_a_frame_does_not_change_the_next(source: Source) -> None:
    into = buffer()
    with source.open() as kept, source.open() as erased:
        for _, image in read_all(kept):
            assert np.array_equal(image, erased.read(into, LONG_S).image)
            into.fill(0)


def test_a_dirty_buffer_is_wholly_overwritten(source: Source) -> None:
    clean, dirty = buffer(), np.full_like(buffer(), 255)
    with source.open() as first, source.open() as second:
        for _ in range(FRAMES):
            first.read(clean, LONG_S)
            second.read(dirty, LONG_S)
            assert np.array_equal(clean, dirty)
            dirty.fill(255)


def test_in_real_time_a_fast_reader_waits_for_each_frame(source: Source) -> None:
    with source.open(pace="realtime") as camera:
        began_ns = source.clock.boot_ns()
        frames = [camera.read(buffer(), LONG_S) for _ in range(4)]
        assert [frame.sequence for frame in frames] == [0, 1, 2, 3]
        due_ns = [began_ns + n * 100_000_000 for n in range(4)]
        assert [frame.boot_ns for frame in frames] == due_ns
        assert camera.dropped == 0


def test_in_real_time_a_slow_reader_gets_the_newest_and_drops_are_counted(source: Source) -> None:
    with source.open(pace="realtime") as camera:
        camera.read(buffer(), LONG_S)
        source.clock.advance(0.55)
        frame = camera.read(buffer(), LONG_S)
        assert frame.sequence == 5
        assert camera.dropped == 4
        assert source.clock.boot_ns() - frame.boot_ns == 50_000_000


def test_in_real_time_the_end_comes_with_the_time(source: Source) -> None:
    with source.open(pace="realtime") as camera:
        camera.read(buffer(), LONG_S)
        source.clock.advance(60)
        with pytest.raises(EndOfStreamError):
            camera.read(buffer(), LONG_S)


def test_no_frame_in_time_is_an_error_and_no_end(source: Source) -> None:
    with source.open(pace="realtime") as camera:
        camera.read(buffer(), LONG_S)
        began_ns = source.clock.boot_ns()
        with pytest.raises(CameraError, match="no frame within") as caught:
            camera.read(buffer(), 0.02)
        assert not isinstance(caught.value, EndOfStreamError)
        assert source.clock.boot_ns() - began_ns == 20_000_000
        assert camera.read(buffer(), LONG_S).sequence == 1


def test_a_loop_begins_again_and_goes_on_counting(source: Source) -> None:
    with source.open(loop=True) as camera:
        frames = [camera.read(buffer(), LONG_S) for _ in range(2 * FRAMES + 1)]
    assert [frame.sequence for frame in frames] == list(range(2 * FRAMES + 1))
    assert np.array_equal(frames[0].image, frames[FRAMES].image)
    assert np.array_equal(frames[3].image, frames[FRAMES + 3].image)


def test_flat_out_frames_are_exposed_when_they_are_asked_for(source: Source) -> None:
    source.clock.advance(7)
    with source.open() as camera:
        assert camera.read(buffer(), LONG_S).boot_ns == source.clock.boot_ns()


@pytest.mark.skipif(HAS_PICAMERA, reason="picamera2 is installed here")
def test_without_picamera2_the_message_says_what_to_install() -> None:
    with pytest.raises(CameraError, match="install python3-picamera2"):
        Picamera(size=SIZE, fps=FPS)
