"""The beacon: lamps through the indicator service, and what happens when it is not there."""

from __future__ import annotations

import pytest

from appliance.errors import LinkError
from appliance.indicator.player import Player
from appliance.indicator.simulated import SimulatedLamps
from appliance.link.simulated import SimulatedLink
from appliance.services.beacon import Beacon
from appliance.services.indicator import Indicator
from appliance.system.clock import SimulatedClock
from appliance.types import Lamp, NodeState
from appliance.wire import Ack, Deny, Show, encode
from tests.builders import a_health


class Box:
    """The indicator service's logic behind a simulated socket."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.lamps = SimulatedLamps()
        self.indicator = Indicator(Player(self.lamps, self.clock), self.clock)
        self.link = SimulatedLink(
            lambda question: encode(self.indicator.answer(question, b"watch"))
        )
        self.beacon = Beacon(self.link, connected=lambda: self.link.up)


@pytest.fixture
def box() -> Box:
    return Box()


def test_the_camera_lamp_is_lit_before_the_beacon_says_so(box: Box) -> None:
    assert box.beacon.camera(on=True)
    assert Lamp.CAMERA in box.lamps.lit
    assert box.beacon.lit


def test_a_broken_lamp_is_a_no(box: Box) -> None:
    box.lamps.broken = True
    assert not box.beacon.camera(on=True)
    assert not box.beacon.lit


def test_a_camera_that_was_not_switched_on_is_not_shown_as_on_later(box: Box) -> None:
    box.link.up = False
    assert not box.beacon.camera(on=True)
    box.link.up = True
    assert box.beacon.show(NodeState.NO_WATCHLIST)
    assert Lamp.CAMERA not in box.lamps.lit


def test_without_an_indicator_nothing_is_lit_at_once(box: Box) -> None:
    assert box.beacon.show(NodeState.WATCHING)
    box.link.up = False
    assert not box.beacon.lit
    assert not box.beacon.show(NodeState.WATCHING)
    box.link.up = True
    assert not box.beacon.lit  # it has to say so itself
    assert box.beacon.show(NodeState.WATCHING)
    assert box.beacon.lit


def test_a_state_is_shown_with_the_camera_as_it_was(box: Box) -> None:
    box.beacon.camera(on=True)
    box.beacon.show(NodeState.WATCHING)
    assert Lamp.CAMERA in box.lamps.lit
    box.beacon.camera(on=False)
    assert Lamp.CAMERA not in box.lamps.lit


def test_five_seconds_of_silence_are_a_fault(box: Box) -> None:
    box.beacon.show(NodeState.WATCHING)
    box.clock.advance(4.9)
    box.indicator.play()
    fault = {Lamp.STATUS, Lamp.ALERT}
    assert not fault <= box.lamps.lit
    box.clock.advance(0.2)
    box.indicator.play()
    assert fault <= box.lamps.lit
    box.beacon.show(NodeState.WATCHING)
    assert Lamp.ALERT not in box.lamps.lit


def test_a_node_that_starts_is_no_fault_for_a_minute(box: Box) -> None:
    fault = {Lamp.STATUS, Lamp.ALERT}
    for told in (False, True):  # before anybody speaks; again, by the tries of a node that joins
        if told:
            assert box.beacon.show(NodeState.STARTING)
        for _ in range(59):
            box.clock.advance(1)
            box.indicator.play()
            assert not fault <= box.lamps.lit
    box.clock.advance(2)
    box.indicator.play()
    assert fault <= box.lamps.lit


def test_whoever_says_no_more_than_starting_drives_nothing(box: Box) -> None:
    starting = encode(Show(NodeState.STARTING, camera_on=False))
    assert isinstance(box.indicator.answer(starting, b"join"), Ack)
    assert box.beacon.show(NodeState.IDLE), "the watch service need not wait for its silence"
    assert isinstance(box.indicator.answer(starting, b"join"), Deny)
    box.clock.advance(5.1)
    box.indicator.play()
    assert {Lamp.STATUS, Lamp.ALERT} <= box.lamps.lit, "from then on five seconds count"


def test_silence_does_not_darken_the_camera_lamp(box: Box) -> None:
    box.beacon.camera(on=True)
    box.clock.advance(60)
    box.indicator.play()
    assert Lamp.CAMERA in box.lamps.lit


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"\xff" * 40,
        encode(Ack()),
        encode(Show("no-such-state", camera_on=False)),
    ],
)
def test_what_is_no_show_is_denied_and_changes_nothing(box: Box, question: bytes) -> None:
    before = list(box.lamps.history)
    assert isinstance(box.indicator.answer(question, b"watch"), Deny)
    assert box.lamps.history == before


def test_only_show_is_answered(box: Box) -> None:
    assert isinstance(box.indicator.answer(encode(a_health()), b"watch"), Deny)


def test_a_link_that_is_closed_raises_nothing(box: Box) -> None:
    box.link.close()
    with pytest.raises(LinkError):
        box.link.request(b"x", 0.1)
    assert not box.beacon.show(NodeState.IDLE)


def test_nobody_else_can_darken_the_camera_lamp(box: Box) -> None:
    assert box.beacon.camera(on=True)
    dark = encode(Show(NodeState.IDLE, camera_on=False))
    for _ in range(100):
        assert isinstance(box.indicator.answer(dark, b"link"), Deny)
        assert Lamp.CAMERA in box.lamps.lit
    box.clock.advance(4.9)
    assert isinstance(box.indicator.answer(dark, b"link"), Deny)
    assert box.beacon.show(NodeState.WATCHING)


def test_a_watch_service_that_was_started_again_is_listened_to_after_the_silence(box: Box) -> None:
    box.beacon.camera(on=True)
    idle = encode(Show(NodeState.IDLE, camera_on=False))
    assert isinstance(box.indicator.answer(idle, b"watch, again"), Deny)
    box.clock.advance(5.1)
    starting = encode(Show(NodeState.STARTING, camera_on=False))
    assert isinstance(box.indicator.answer(starting, b"watch, again"), Ack)
    assert isinstance(box.indicator.answer(idle, b"watch, again"), Ack)
    assert Lamp.CAMERA not in box.lamps.lit
    assert isinstance(box.indicator.answer(idle, b"watch"), Deny)
