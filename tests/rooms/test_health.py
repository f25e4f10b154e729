from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.system.health import FLAGS, SERVICE, Vitals, flags, judge, too_hot, wants_service
from appliance.types import NodeState

GOOD = Vitals(
    balanced=True,
    outbox_full=False,
    asked=True,
    list_open=True,
    list_refused=False,
    camera_on=True,
    frames=100,
    since_answer_s=1.0,
    since_alert_s=math.inf,
)


def with_(**changes: object) -> Vitals:
    return dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]  # fields of all types


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, NodeState.WATCHING),
        ({"balanced": False}, NodeState.FAULT),
        ({"outbox_full": True}, NodeState.FAULT),
        ({"since_alert_s": 0.5}, NodeState.ALERT),
        ({"since_alert_s": 0.5, "balanced": False}, NodeState.FAULT),
        ({"since_alert_s": 0.5, "hot": True}, NodeState.ALERT),
        ({"hot": True}, NodeState.HOT),
        ({"hot": True, "updating": True}, NodeState.UPDATING),
        ({"list_open": False, "updating": True}, NodeState.UPDATING),
        ({"since_alert_s": 0.5, "updating": True}, NodeState.ALERT),
        ({"hot": True, "since_answer_s": 1e3}, NodeState.HOT),
        ({"hot": True, "list_open": False}, NodeState.HOT),
        ({"list_open": False, "list_refused": True}, NodeState.NO_WATCHLIST),
        ({"list_open": False, "asked": False}, NodeState.STARTING),
        ({"list_open": False, "since_answer_s": 1e3}, NodeState.NO_WATCHLIST),
        ({"list_open": False}, NodeState.IDLE),
        ({"camera_on": False}, NodeState.STARTING),
        ({"frames": 0}, NodeState.STARTING),
        ({"since_answer_s": 1e3}, NodeState.OFFLINE),
        ({"on_fallback": True, "disk_free_mib": 1.0, "clock_set": False}, NodeState.WATCHING),
    ],
)
def test_the_worst_that_holds_names_the_state(changes: dict[str, object], state: NodeState) -> None:
    assert judge(with_(**changes)) is state


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"balanced": False}, "unbalanced"),
        ({"outbox_full": True}, "outbox-full"),
        ({"outbox_share": 0.8}, "outbox-nearly-full"),
        ({"outbox_durable": False}, "outbox-not-durable"),
        ({"list_refused": True}, "list-refused"),
        ({"lease_left_s": 899.0}, "lease-ends-soon"),
        ({"on_fallback": True}, "on-fallback"),
        ({"hot": True}, "too-hot"),
        ({"throttled": True}, "throttled"),
        ({"under_voltage": True}, "under-voltage"),
        ({"clock_set": False}, "clock-not-set"),
        ({"fps": 4.9, "fps_asked": 10.0}, "slow"),
        ({"disk_free_mib": 63.0}, "disk-nearly-full"),
        ({"memory_free_mib": 63.0}, "memory-low"),
        ({"hidden_unsearchable": True}, "hidden-faces-not-searchable"),
        ({"in_the_clear": True}, "data-not-encrypted"),
    ],
)
def test_each_trouble_has_its_flag(changes: dict[str, object], flag: str) -> None:
    assert flags(with_(**changes)) == (flag,)


def test_a_good_node_has_no_flags_and_every_flag_is_tested() -> None:
    assert flags(GOOD) == ()
    assert not wants_service(GOOD)
    assert len({name for name, _ in FLAGS}) == len(FLAGS) == 16


def test_the_hint_is_for_what_a_person_can_mend() -> None:
    assert {name for name, _ in FLAGS} >= SERVICE
    assert wants_service(with_(on_fallback=True))
    assert not wants_service(with_(clock_set=False, list_refused=True))


def test_slow_is_told_only_of_a_camera_that_runs() -> None:
    assert flags(with_(fps=1.0, fps_asked=10.0, camera_on=False)) == ()
    assert flags(with_(fps=0.0, fps_asked=10.0)) == ()  # not measured yet


def test_heat_has_a_gap_between_hot_and_cool() -> None:
    hot, seen = False, []
    for celsius in (79.9, 80.0, 79.0, 75.0, 74.9, 79.9):
        hot = too_hot(celsius, before=hot)
        seen.append(hot)
    assert seen == [False, True, True, True, False, False]


def test_a_node_without_a_sensor_is_not_hot() -> None:
    assert not too_hot(None, before=True)


@given(celsius=st.floats(-50, 150), before=st.booleans())
def test_hotter_is_never_cooler(celsius: float, before: bool) -> None:  # noqa: FBT001
    assert too_hot(celsius, before=before) <= too_hot(celsius + 1, before=before)
    assert too_hot(celsius, before=False) <= too_hot(celsius, before=True)
