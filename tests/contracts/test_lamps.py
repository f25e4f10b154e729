"""The Lamps seam: every driver lights exactly what it is told to; the player keeps it told."""

from __future__ import annotations

import io

import pytest

from appliance.indicator.player import Player
from appliance.indicator.simulated import SimulatedLamps
from appliance.indicator.terminal import TerminalLamps
from appliance.interfaces import Lamps
from appliance.system.clock import SimulatedClock
from appliance.types import Lamp, NodeState


class Screen(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty

    def lit(self) -> set[Lamp]:
        """The lamps that the last row shows lit."""
        row = self.getvalue().replace("\r", "\n").rstrip("\n").rsplit("\n", 1)[-1]
        words = row.replace("\x1b[K", "").split("  ")
        return {lamp for lamp, word in zip(Lamp, words, strict=True) if "●" in word}


class Bench:
    """Lamps and a way to look at them."""

    def __init__(self, kind: str) -> None:
        self.screen = Screen(tty=kind == "terminal")
        self.simulated = SimulatedLamps()
        self.lamps: Lamps = self.simulated if kind == "simulated" else TerminalLamps(self.screen)

    def lit(self) -> set[Lamp]:
        if self.lamps is self.simulated:
            return set(self.simulated.lit)
        return self.screen.lit()

    def break_it(self) -> None:
        self.simulated.broken = True
        self.screen.close()


@pytest.fixture(params=["simulated", "terminal", "pipe"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


@pytest.mark.parametrize("lamp", list(Lamp))
def test_lights_exactly_what_it_is_told(bench: Bench, lamp: Lamp) -> None:
    bench.lamps.set({lamp: True})
    assert bench.lit() == {lamp}
    bench.lamps.set({lamp: False})
    assert bench.lit() == set()


def test_lamps_that_are_not_named_are_dark(bench: Bench) -> None:
    bench.lamps.set(dict.fromkeys(Lamp, True))
    bench.lamps.set({Lamp.STATUS: True})
    assert bench.lit() == {Lamp.STATUS}


def test_all_are_dark_when_closed(bench: Bench) -> None:
    with bench.lamps as lamps:
        lamps.set(dict.fromkeys(Lamp, True))
    assert bench.lit() == set()


def test_a_lamp_that_cannot_be_driven_raises(bench: Bench) -> None:
    bench.break_it()
    with pytest.raises(OSError, match="lamps:"):
        bench.lamps.set({Lamp.CAMERA: True})


def test_a_terminal_is_repainted_and_a_pipe_gets_lines() -> None:
    terminal, pipe = Screen(tty=True), Screen(tty=False)
    for screen in (terminal, pipe):
        lamps = TerminalLamps(screen)
        lamps.set({Lamp.STATUS: True})
        lamps.set({Lamp.STATUS: True})
        lamps.set({Lamp.STATUS: False})
    assert terminal.getvalue().count("\r") == 2
    assert "\n" not in terminal.getvalue()
    assert pipe.getvalue().splitlines() == [
        "○ camera  ● status  ○ alert",
        "○ camera  ○ status  ○ alert",
    ]


def test_the_simulated_lamps_remember_and_forget_the_oldest() -> None:
    lamps = SimulatedLamps()
    for n in range(10_005):
        lamps.set({Lamp.ALERT: n % 2 == 0})
    assert len(lamps.history) == 10_000
    assert lamps.lit == {Lamp.ALERT}


def test_the_camera_lamp_is_lit_before_the_setter_returns() -> None:
    lamps = SimulatedLamps()
    player = Player(lamps, SimulatedClock())
    player.camera_on = True
    assert Lamp.CAMERA in lamps.lit
    player.camera_on = False
    assert Lamp.CAMERA not in lamps.lit


def test_a_camera_whose_lamp_is_broken_cannot_be_switched_on() -> None:
    lamps = SimulatedLamps()
    player = Player(lamps, SimulatedClock())
    lamps.broken = True
    with pytest.raises(OSError, match="lamps:"):
        player.camera_on = True


def test_the_player_sets_lamps_only_when_they_change() -> None:
    lamps, clock = SimulatedLamps(), SimulatedClock()
    player = Player(lamps, clock)
    for _ in range(40):  # STARTING: 0.5 s lit, 0.5 s dark, for 2 s
        player.step()
        clock.advance(0.05)
    assert [state[Lamp.STATUS] for state in lamps.history] == [True, False, True, False]


def test_a_new_state_begins_its_rhythm_at_the_beginning() -> None:
    lamps, clock = SimulatedLamps(), SimulatedClock()
    player = Player(lamps, clock)
    clock.advance(0.7)
    player.step()
    assert Lamp.STATUS not in lamps.lit
    player.state = NodeState.FAULT
    player.step()
    assert lamps.lit == {Lamp.STATUS, Lamp.ALERT}
    clock.advance(0.3)
    player.state = NodeState.FAULT  # set again: goes on, does not begin again
    clock.advance(0.35)
    player.step()
    assert lamps.lit == frozenset()
    assert player.state is NodeState.FAULT
