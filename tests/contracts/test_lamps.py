"""The Lamps seam: every driver lights exactly what it is told to; the player keeps it told.

The LEDs of a Raspberry Pi run the same tests where there is a header: `pytest -m pi`, with
PICKET_LAMPS="camera status alert" (BCM numbers; 17 27 22 unless it says otherwise).
"""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Iterator
from typing import Any

import pytest

from appliance.errors import LampError
from appliance.indicator.drivers import open_lamps
from appliance.indicator.gpio import GpioLamps, Pin, check_pins
from appliance.indicator.patterns import MEANING
from appliance.indicator.player import Player
from appliance.indicator.show import show
from appliance.indicator.simulated import SimulatedLamps
from appliance.indicator.terminal import DEFAULT_COLOURS, TerminalLamps
from appliance.indicator.unlit import Unlit
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


PINS = dict(
    zip(Lamp, map(Pin, map(int, os.environ.get("PICKET_LAMPS", "17 27 22").split())), strict=True)
)


class Bench:
    """Lamps and a way to look at them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.screen = Screen(tty=kind == "terminal")
        self.simulated = SimulatedLamps()
        if kind == "simulated":
            self.lamps: Lamps = self.simulated
        elif kind.startswith("gpio"):
            low = kind == "gpio-low"
            self.lamps = GpioLamps({lamp: Pin(p.bcm, active_low=low) for lamp, p in PINS.items()})
        else:
            self.lamps = TerminalLamps(self.screen)

    def lit(self) -> set[Lamp]:
        if self.lamps is self.simulated:
            return set(self.simulated.lit)
        if isinstance(self.lamps, GpioLamps):
            gpio: Any = self.lamps._gpio
            low = self.kind == "gpio-low"
            return {lamp for lamp, pin in PINS.items() if bool(gpio.input(pin.bcm)) != low}
        return self.screen.lit()

    def break_it(self) -> None:
        self.simulated.broken = True
        self.screen.close()
        if isinstance(self.lamps, GpioLamps):
            self.lamps._gpio.cleanup()  # pins that are no outputs any more


@pytest.fixture(
    params=[
        "simulated",
        "terminal",
        "pipe",
        pytest.param("gpio", marks=pytest.mark.pi),
        pytest.param("gpio-low", marks=pytest.mark.pi),
    ]
)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param.startswith("gpio") and importlib.util.find_spec("RPi") is None:
        pytest.skip("RPi.GPIO is not installed: no GPIO header here")
    bench = Bench(request.param)
    yield bench
    if isinstance(bench.lamps, GpioLamps):
        bench.lamps._gpio.cleanup()


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


def test_closing_leaves_the_lamps_as_they_were(bench: Bench) -> None:
    with bench.lamps as lamps:
        lamps.set({Lamp.STATUS: True, Lamp.ALERT: True})
    assert bench.lit() == {Lamp.STATUS, Lamp.ALERT}


@pytest.mark.parametrize("filming", [True, False])
def test_the_last_light_is_a_fault_and_not_dark(
    bench: Bench,
    filming: bool,  # noqa: FBT001 - a parameter
) -> None:
    with bench.lamps as lamps:
        player = Player(lamps, SimulatedClock())
        player.state = NodeState.WATCHING
        player.camera_on = filming
        player.leave()
    assert bench.lit() == {Lamp.STATUS, Lamp.ALERT} | ({Lamp.CAMERA} if filming else set())


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


def test_a_hint_flashes_on_the_lamp_that_the_state_leaves_dark() -> None:
    lamps, clock = SimulatedLamps(), SimulatedClock()
    player = Player(lamps, clock)
    player.state, player.hint = NodeState.WATCHING, True
    player.step()
    assert Lamp.ALERT in lamps.lit
    clock.advance(0.25)
    player.step()
    assert Lamp.ALERT not in lamps.lit
    player.hint = False
    clock.advance(3.8)
    player.step()
    assert Lamp.ALERT not in lamps.lit


def test_a_lamp_without_leds_takes_everything_and_shows_nothing() -> None:
    with open_lamps("none", pins={}, colours={}, stream=io.StringIO()) as lamps:
        assert isinstance(lamps, Unlit)
        lamps.set(dict.fromkeys(Lamp, True))


def test_the_terminal_paints_the_colours_that_it_is_told() -> None:
    screen = Screen(tty=True)
    blue = DEFAULT_COLOURS | {Lamp.STATUS: "blue"}
    with open_lamps("terminal", pins={}, colours=blue, stream=screen) as lamps:
        lamps.set({Lamp.STATUS: True})
    assert "\x1b[34m●" in screen.getvalue()


@pytest.mark.skipif(
    importlib.util.find_spec("RPi") is not None, reason="RPi.GPIO is installed here"
)
def test_without_a_gpio_library_the_message_says_what_to_install() -> None:
    with pytest.raises(LampError, match="install python3-rpi-lgpio"):
        open_lamps("gpio", pins=PINS, colours=DEFAULT_COLOURS, stream=io.StringIO())


@pytest.mark.parametrize(
    ("pins", "says"),
    [
        ({Lamp.CAMERA: Pin(5), Lamp.STATUS: Pin(6)}, "alert has no pin"),
        ({Lamp.CAMERA: Pin(5), Lamp.STATUS: Pin(5), Lamp.ALERT: Pin(6)}, "both on BCM 5"),
        ({Lamp.CAMERA: Pin(1), Lamp.STATUS: Pin(5), Lamp.ALERT: Pin(6)}, "the header has 2 to 27"),
        ({Lamp.CAMERA: Pin(4), Lamp.STATUS: Pin(28), Lamp.ALERT: Pin(6)}, "is on BCM 28"),
    ],
)
def test_a_wiring_that_cannot_be_is_refused(pins: dict[Lamp, Pin], says: str) -> None:
    with pytest.raises(LampError, match=says):
        check_pins(pins)


def test_a_pin_that_is_active_low_is_low_when_lit() -> None:
    assert [Pin(5).level(lit) for lit in (True, False)] == [True, False]
    assert [Pin(5, active_low=True).level(lit) for lit in (True, False)] == [False, True]


def test_show_walks_through_the_states_and_ends_dark() -> None:
    lamps, clock = SimulatedLamps(), SimulatedClock()
    said: list[str] = []
    states = [NodeState.IDLE, NodeState.FAULT]
    began_ns = clock.boot_ns()
    show(states, lamps=lamps, clock=clock, wait=clock.advance, say=said.append, seconds=4.0)
    assert [line.partition(":")[0] for line in said] == ["idle", "fault"]
    assert MEANING[NodeState.FAULT][1] in said[1]
    assert clock.boot_ns() - began_ns == pytest.approx(8e9, abs=0.2e9)
    assert any(shown[Lamp.ALERT] for shown in lamps.history)
    assert lamps.lit == frozenset()
