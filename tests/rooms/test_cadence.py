"""Cadence: an empty street is searched rarely, a person in view never too rarely."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from appliance.tracking.cadence import Cadence

REST_S = 0.15


def searched(fps: float, seconds: float, *, undecided: int = 0, pace: float = 0.0) -> list[float]:
    """Times of the frames that were searched."""
    cadence = Cadence(rest_s=REST_S)
    times = [n / fps for n in range(round(fps * seconds))]
    return [t for t in times if cadence.due(round(t * 1e9), undecided=undecided, pace=pace)]


def test_an_empty_street_at_15_frames_a_second_is_searched_in_every_third() -> None:
    assert len(searched(15.0, 10.0)) == 50


def test_while_somebody_is_judged_every_frame_is_searched() -> None:
    assert len(searched(15.0, 10.0, undecided=1)) == 150


def test_slow_frames_are_all_searched() -> None:
    assert len(searched(5.0, 10.0)) == 50


def test_without_rest_every_frame_is_searched() -> None:
    cadence = Cadence(rest_s=0.0)
    assert all(cadence.due(n, undecided=0, pace=0.0) for n in range(10))


@given(st.floats(5.0, 60.0), st.floats(0.0, 50.0))
def test_no_face_moves_far_between_two_looks_and_nobody_waits_long(fps: float, pace: float) -> None:
    times = searched(fps, 3.0, pace=pace)
    longest = max(after - before for before, after in itertools.pairwise(times))
    assert longest <= REST_S + 1 / fps + 1e-6
    assert pace * longest <= 0.25 + pace / fps + 1e-6


@given(st.floats(8.0, 30.0), st.floats(0.0, 1.0))
def test_who_is_in_view_for_a_second_is_looked_at_at_least_five_times(
    fps: float, phase: float
) -> None:
    cadence = Cadence(rest_s=REST_S)
    looks = 0
    for n in range(round(3 * fps)):
        t = n / fps
        in_view = 1.0 + phase <= t < 2.0 + phase
        due = cadence.due(round(t * 1e9), undecided=int(looks > 0 and in_view), pace=0.0)
        looks += due and in_view
    assert looks >= 5
