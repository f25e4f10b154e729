from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.indicator.patterns import (
    ALERT,
    MEANING,
    STATUS,
    farewell,
    lit,
    rhythm,
    table_markdown,
)
from appliance.types import Lamp, NodeState

STATES = list(NodeState)


def tenths(state: NodeState, lamp: Lamp = Lamp.STATUS) -> tuple[bool, ...]:
    """A lamp for 12 s: two of the longest periods from any phase on."""
    return tuple(lit(state, camera_on=False, t_s=(n + 0.5) / 10)[lamp] for n in range(120))


def period(state: NodeState) -> int:
    return sum(STATUS[state])


def test_every_state_has_a_rhythm_and_a_meaning() -> None:
    assert set(STATUS) == set(STATES) == set(MEANING)


@pytest.mark.parametrize(("a", "b"), list(itertools.combinations(STATES, 2)))
def test_no_two_states_look_the_same_whenever_one_begins_to_look(
    a: NodeState, b: NodeState
) -> None:
    row_a, row_b = tenths(a), tenths(b)
    seen_a = {row_a[shift : shift + 80] for shift in range(period(a))}
    seen_b = {row_b[shift : shift + 80] for shift in range(period(b))}
    assert not seen_a & seen_b


@pytest.mark.parametrize("state", STATES)
def test_repeats_within_four_seconds(state: NodeState) -> None:
    assert period(state) <= 40
    assert tenths(state)[: 120 - period(state)] == tenths(state)[period(state) :]


@pytest.mark.parametrize("state", STATES)
def test_is_never_steady(state: NodeState) -> None:
    assert len(set(tenths(state)[:40])) == 2


@pytest.mark.parametrize("state", STATES)
def test_can_be_counted_and_does_not_flash_more_than_three_times_a_second(
    state: NodeState,
) -> None:
    assert len(STATUS[state]) % 2 == 0
    assert min(STATUS[state]) >= 2
    assert len(STATUS[state]) // 2 <= 4
    row = tenths(state)
    for start in range(110):
        flashes = sum(not a and b for a, b in itertools.pairwise(row[start : start + 11]))
        assert flashes <= 3


@given(
    state=st.sampled_from(STATES),
    camera_on=st.booleans(),
    t_s=st.floats(min_value=0, max_value=1e6),
)
def test_the_camera_lamp_is_lit_exactly_while_the_camera_is_on(
    state: NodeState,
    camera_on: bool,  # noqa: FBT001 - drawn by hypothesis
    t_s: float,
) -> None:
    shown = lit(state, camera_on=camera_on, t_s=t_s)
    assert shown[Lamp.CAMERA] is camera_on
    assert set(shown) == set(Lamp)


def test_the_alert_lamp_is_for_the_states_that_want_somebody_to_come() -> None:
    assert {s for s in STATES if any(tenths(s, Lamp.ALERT))} == set(ALERT)
    assert set(ALERT) == {NodeState.ALERT, NodeState.FAULT}


def test_the_camera_lamp_has_no_rhythm() -> None:
    with pytest.raises(ValueError, match="follows the camera"):
        rhythm(NodeState.WATCHING, Lamp.CAMERA)


def test_the_table_has_a_row_for_every_state() -> None:
    rows = table_markdown().splitlines()
    assert len(rows) == 2 + len(STATES) + 3
    assert all(row.count("|") == 5 for row in rows)
    names = [row.split("|")[1].strip() for row in rows[2:]]
    assert names == [*(s.value for s in MEANING), "(any)", "(fault)", "(fault)"]


@pytest.mark.parametrize("state", STATES)
def test_a_hint_shows_only_where_the_second_lamp_is_dark(state: NodeState) -> None:
    hinted = [
        lit(state, camera_on=False, t_s=(n + 0.5) / 10, hint=True)[Lamp.ALERT] for n in range(120)
    ]
    if state in ALERT:
        assert tuple(hinted) == tenths(state, Lamp.ALERT)
    else:
        assert [n for n, on in enumerate(hinted) if on] == [0, 1, 40, 41, 80, 81]


@pytest.mark.parametrize("filming", [True, False])
def test_the_farewell_is_told_from_every_state(filming: bool) -> None:  # noqa: FBT001
    left = farewell(camera_on=filming)
    assert left == {Lamp.CAMERA: filming, Lamp.STATUS: True, Lamp.ALERT: True}
