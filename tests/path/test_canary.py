"""A stranger's face is shown to the real watch service; then its memory is searched for it.

The search is first shown to find what is there: while the face is in view, and in a node whose
erasure is switched off.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from appliance.watchlist.build import Templates
from tests.path.canary import SIZE, Needles, frame_of_a_stranger, memory_of, needles_of, stopped
from tests.path.enrolled import HIDDEN_EMBEDDER, model_id, template
from tests.path.other_end import OtherEnd, WatchProcess

FPS = 10.0
IN_VIEW, EMPTY = 20, 40
LOOKS = 8
"""While the face is in view: a frame is held for a part of the time only."""
BOUND_S = 0.25
"""After the last use of a frame, nothing of it may be left."""
PASSED = 3
"""Frames processed after the face was gone: the last use of its frame lies before the last two."""


@pytest.fixture(scope="module", params=["bare", "masked"])
def masked(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "masked")


@pytest.fixture(scope="module")
def frame(masked: bool) -> np.ndarray:  # noqa: FBT001 - a fixture
    return frame_of_a_stranger(masked=masked)


@pytest.fixture(scope="module")
def needles(frame: np.ndarray, masked: bool) -> Needles:  # noqa: FBT001 - a fixture
    return needles_of(frame, masked=masked)


@pytest.fixture
def end(tmp_path: Path) -> Iterator[OtherEnd]:
    vectors = np.stack([template("obama.jpg")])
    hidden = Templates(model_id(HIDDEN_EMBEDDER), [1], vectors)
    with OtherEnd(
        tmp_path,
        subjects=["wanted"],
        vectors=vectors,
        model=model_id(),
        columns={"lower": hidden, "eyes": hidden},
    ) as other:
        yield other


@pytest.fixture
def config(end: OtherEnd, frame: np.ndarray, tmp_path: Path) -> Path:
    clip = tmp_path / "clip.rgb"
    with clip.open("wb") as file:
        for _ in range(IN_VIEW):
            file.write(frame.tobytes())
        file.truncate((IN_VIEW + EMPTY) * frame.nbytes)  # the rest is black, and no bytes on disk
    camera = {
        "source": "recorded",
        "path": str(clip),
        "fps": FPS,
        "width": SIZE[0],
        "height": SIZE[1],
    }
    return end.config(camera=camera)


def face_is_gone_s(end: OtherEnd) -> float:
    """CLOCK_BOOTTIME when the last frame with the face in it is exposed."""
    end.wait_for("camera on", lambda: any(h.camera_since_boot_ns for h in end.healths))
    since_ns = next(h.camera_since_boot_ns for h in end.healths if h.camera_since_boot_ns)
    return since_ns / 1e9 + IN_VIEW / FPS


def last_use_is_over(end: OtherEnd, gone_s: float) -> None:
    """Wait until the node works on frames that the face is not in, and has let its track end.

    At its own pace, not ours: a track outlives its last face by its patience, vectors and all.
    """
    sleep_until(gone_s)
    before = len(end.healths)
    end.wait_for("health", lambda: len(end.healths) > before)
    end.wait_for("nobody held", lambda: end.healths[-1].faces_held == 0)
    frames = end.healths[-1].frames
    end.wait_for("frames", lambda: end.healths[-1].frames >= frames + PASSED)
    time.sleep(BOUND_S)


def boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def sleep_until(boot_time_s: float) -> None:
    time.sleep(max(0.0, boot_time_s - boot_s()))


def files_below(folder: Path) -> list[bytes]:
    """All files but the clip and the sockets."""
    return [p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".rgb"]


@pytest.mark.slow
def test_a_strangers_face_is_in_memory_while_in_view_and_gone_after(
    end: OtherEnd, config: Path, needles: Needles
) -> None:
    with WatchProcess(config) as watch:
        gone_s = face_is_gone_s(end)
        in_view: list[list[bytes]] = []
        while boot_s() < gone_s - 0.3 and len(in_view) < LOOKS:
            with stopped(watch.pid):
                in_view.append(memory_of(watch.pid))
        end.wait_for("a face", lambda: any(h.faces_seen for h in end.healths))
        last_use_is_over(end, gone_s)
        with stopped(watch.pid):
            contents = memory_of(watch.pid)
        assert needles.found_in(contents) == set()
        seen = set().union(*(needles.found_in(look, "frame", "vector") for look in in_view))
        assert "frame" in seen, "the search does not find what is there"
        assert watch.child.wait(60) == 0, watch.errors()
    last = end.healths[-1]
    # Standing still for a look can last longer than a track's patience: one face, two tracks.
    assert last.faces_seen == last.faces_erased >= 1
    assert last.faces_alerted == last.faces_held == 0
    assert needles.found_in(end.sent) == set()
    assert needles.found_in(files_below(config.parent)) == set()


@pytest.mark.slow
def test_a_node_that_does_not_erase_is_found_out(
    end: OtherEnd, config: Path, needles: Needles
) -> None:
    with WatchProcess(config, program=Path(__file__).parent / "forgetful.py") as watch:
        gone_s = face_is_gone_s(end)
        end.wait_for("a face", lambda: any(h.faces_seen for h in end.healths))
        last_use_is_over(end, gone_s)
        with stopped(watch.pid):
            contents = memory_of(watch.pid)
    found = needles.found_in(contents)
    # Frames after it lie over the buffers of whole frames; what is made of a face alone stays.
    assert found >= {"crop", "crop, quantised"}
