"""One decision per track, one alert per subject and cool-down."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.alerts.policy import Policy, Reason
from appliance.types import Match

SECOND = 1_000_000_000


def match(similarity: float, subject: str = "ann") -> Match:
    return Match(subject, similarity, -1.0)


def test_a_near_subject_is_an_alert_and_a_far_one_a_stranger() -> None:
    policy = Policy(cooldown_s=60.0)
    alert = policy.decide(1, match(0.5), threshold=0.5, boot_ns=0)
    stranger = policy.decide(2, match(0.49), threshold=0.5, boot_ns=0)
    assert alert
    assert (alert.track_id, alert.subject, alert.similarity) == (1, "ann", 0.5)
    assert (bool(stranger), stranger.reason) == (False, Reason.STRANGER)


def test_a_track_is_decided_once() -> None:
    policy = Policy(cooldown_s=0.0)
    assert not policy.decide(1, match(0.1), threshold=0.5, boot_ns=0)
    again = policy.decide(1, match(0.9), threshold=0.5, boot_ns=SECOND)
    assert again.reason is Reason.DECIDED_BEFORE


def test_a_forgotten_track_makes_room_for_its_number() -> None:
    policy = Policy(cooldown_s=0.0)
    policy.decide(1, match(0.9), threshold=0.5, boot_ns=0)
    policy.forget(1)
    policy.forget(7)
    assert policy.decide(1, match(0.9), threshold=0.5, boot_ns=SECOND)


def test_a_subject_cools_down_from_its_alert_and_not_from_its_last_sight() -> None:
    policy = Policy(cooldown_s=60.0)
    assert policy.decide(1, match(0.9), threshold=0.5, boot_ns=0)
    during = policy.decide(2, match(0.9), threshold=0.5, boot_ns=59 * SECOND)
    assert during.reason is Reason.COOLING_DOWN
    assert policy.decide(3, match(0.9), threshold=0.5, boot_ns=60 * SECOND)


def test_one_subject_cooling_down_does_not_hide_another() -> None:
    policy = Policy(cooldown_s=60.0)
    assert policy.decide(1, match(0.9, "ann"), threshold=0.5, boot_ns=0)
    assert policy.decide(2, match(0.9, "bob"), threshold=0.5, boot_ns=1)


@pytest.mark.parametrize("similarity", [math.nan, -math.inf])
def test_a_similarity_that_is_no_number_is_a_stranger(similarity: float) -> None:
    decision = Policy(cooldown_s=1.0).decide(1, match(similarity), threshold=-1.0, boot_ns=0)
    assert decision.reason is Reason.STRANGER


@given(
    st.lists(
        st.tuples(
            st.integers(1, 9),
            st.sampled_from(["ann", "bob", "cy"]),
            st.floats(-1.0, 1.0),
            st.integers(0, 40),
        ),
        max_size=60,
    )
)
def test_alerts_of_a_subject_are_never_closer_than_the_cooldown(
    walk: list[tuple[int, str, float, int]],
) -> None:
    policy, now_ns = Policy(cooldown_s=30.0), 0
    alerts: dict[str, list[int]] = {}
    tracks: set[int] = set()
    for track_id, subject, similarity, pause_s in walk:
        now_ns += pause_s * SECOND
        decision = policy.decide(
            track_id, match(similarity, subject), threshold=0.4, boot_ns=now_ns
        )
        assert (decision.reason is Reason.DECIDED_BEFORE) == (track_id in tracks)
        tracks.add(track_id)
        if decision:
            assert similarity >= 0.4
            alerts.setdefault(subject, []).append(now_ns)
    for times in alerts.values():
        assert all(b - a >= 30 * SECOND for a, b in itertools.pairwise(times))


def test_what_is_remembered_is_bounded() -> None:
    policy = Policy(cooldown_s=1.0, tracks=16)
    for i in range(1000):
        policy.decide(i, match(0.9, f"s{i}"), threshold=0.5, boot_ns=i * SECOND)
    assert len(policy._decided) == 16
    assert len(policy._alerted_ns) == 1
