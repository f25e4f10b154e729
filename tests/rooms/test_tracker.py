from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tracking.tracker import Tracker
from appliance.types import Face
from appliance.vision.align import TEMPLATE

SECOND = 1_000_000_000


def face(x: float, y: float, width: float = 50.0, score: float = 0.9) -> Face:
    """A face by its centre."""
    half = np.array([width / 2, width * 0.6], np.float32)
    centre = np.array([x, y], np.float32)
    box = np.concatenate([centre - half, centre + half]).astype(np.float32)
    return Face(box, TEMPLATE, score)


def at(fps: float, frame: int) -> int:
    return round(frame / fps * SECOND) + 1


@pytest.mark.parametrize("fps", [5.0, 10.0, 15.0])
def test_one_who_walks_by_is_one_track(fps: float) -> None:
    tracker = Tracker()
    widths_per_s = 6.0  # 1 m/s
    for frame in range(20):
        step = tracker.update([face(100 + widths_per_s * 50 * frame / fps, 200)], at(fps, frame))
        assert [track.id for track in step.seen] == [1]
    assert step.seen[0].hits == 20
    assert step.seen[0].first_seen_ns == at(fps, 0)


@pytest.mark.parametrize("fps", [5.0, 15.0])
def test_one_who_walks_up_grows_and_stays_one_track(fps: float) -> None:
    tracker = Tracker()
    for frame in range(int(6 * fps)):
        distance_m = 10.0 - 1.4 * frame / fps
        step = tracker.update([face(640, 300 + 400 / distance_m, 320 / distance_m)], at(fps, frame))
        assert [track.id for track in step.seen] == [1]


def test_two_who_pass_each_other_keep_their_ids() -> None:
    tracker = Tracker()
    for frame in range(40):
        left, right = face(100 + 12 * frame, 200), face(580 - 12 * frame, 230)
        step = tracker.update([left, right], at(15, frame))
        assert [track.id for track in step.seen] == [1, 2]
        assert step.seen[0].face is left
        assert step.seen[1].face is right


def test_a_short_occlusion_keeps_the_id_and_a_long_one_does_not() -> None:
    tracker = Tracker(patience_s=0.5)
    for frame in range(6):
        tracker.update([face(100 + 10 * frame, 200)], at(10, frame))
    for frame in range(6, 10):  # hidden for 0.4 s
        assert tracker.update([], at(10, frame)).seen == ()
    again = tracker.update([face(200, 200)], at(10, 10))
    assert [track.id for track in again.seen] == [1]
    assert again.seen[0].hits == 7
    late = tracker.update([face(270, 200)], at(10, 17))
    assert [track.id for track in late.ended] == [1]
    assert [track.id for track in late.seen] == [2]


def test_a_track_ends_once_with_its_last_face() -> None:
    tracker = Tracker(patience_s=0.5)
    last = face(100, 200)
    tracker.update([last], 0)
    assert tracker.update([], SECOND // 2).ended == ()
    ended = tracker.update([], SECOND // 2 + 1).ended
    assert [track.face for track in ended] == [last]
    assert tracker.update([], SECOND).ended == ()


def test_somebody_far_away_is_somebody_else() -> None:
    tracker = Tracker()
    tracker.update([face(100, 200)], 0)
    step = tracker.update([face(500, 200)], at(15, 1))
    assert [track.id for track in step.seen] == [2]


def test_a_face_of_quite_another_size_is_somebody_else() -> None:
    tracker = Tracker()
    tracker.update([face(100, 200, width=30)], 0)
    step = tracker.update([face(120, 200, width=120)], at(15, 1))
    assert [track.id for track in step.seen] == [2]


def test_more_faces_than_tracks_are_counted_and_the_best_are_followed() -> None:
    tracker = Tracker(max_tracks=2)
    crowd = [face(200 * i, 100, score=0.9 - 0.1 * i) for i in range(5)]
    step = tracker.update(crowd, 0)
    assert [track.face for track in step.seen] == crowd[:2]
    assert tracker.untracked == 3


def test_closing_ends_every_track_and_ids_go_on() -> None:
    tracker = Tracker()
    tracker.update([face(100, 100), face(400, 100)], 0)
    assert [track.id for track in tracker.close()] == [1, 2]
    assert tracker.close() == ()
    assert [track.id for track in tracker.update([face(100, 100)], 1).seen] == [3]


def test_refuses_a_frame_from_the_past() -> None:
    tracker = Tracker()
    tracker.update([], 10)
    with pytest.raises(ValueError, match="frame of 9 ns after one of 10 ns"):
        tracker.update([], 9)


def test_two_frames_of_one_moment_do_no_harm() -> None:
    tracker = Tracker()
    for _ in range(3):
        step = tracker.update([face(100, 100)], 5)
    assert step.seen[0].hits == 3
    assert tracker.update([face(110, 100)], at(15, 1)).seen[0].id == 1


@dataclass(frozen=True)
class Crowd:
    faces: list[Face]
    dt_ns: int


CROWDS = st.lists(
    st.builds(
        Crowd,
        st.lists(
            st.builds(face, st.floats(0, 600), st.floats(0, 400), st.floats(0.0, 200)), max_size=8
        ),
        st.integers(0, SECOND),
    ),
    max_size=12,
)


@given(crowds=CROWDS)
def test_ids_are_unique_increasing_and_every_track_ends_once(crowds: list[Crowd]) -> None:
    tracker = Tracker(max_tracks=6)
    now, begun, ended = 0, [], []
    for crowd in crowds:
        now += crowd.dt_ns
        step = tracker.update(crowd.faces, now)
        ids = [track.id for track in step.seen]
        assert ids == sorted(set(ids))
        assert len({id(track.face) for track in step.seen}) == len(ids)
        assert not {track.id for track in step.ended} & set(ids)
        begun += [track.id for track in step.seen if track.hits == 1]
        ended += [track.id for track in step.ended]
        assert len(begun) - len(ended) <= 6
    ended += [track.id for track in tracker.close()]
    assert begun == list(range(1, len(begun) + 1))
    assert sorted(ended) == begun
