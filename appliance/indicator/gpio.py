"""LEDs on a Raspberry Pi's header, through the RPi.GPIO interface.

RPi.GPIO serves the Pi 4 and older, rpi-lgpio the Pi 5 under the same import name: one of the two
is installed. Neither has run here on hardware; the contract test is tests/contracts/test_lamps.py
with the marker `pi`.

What happens to the lamps when the process ends: RPi.GPIO writes to the chip's registers, so a pin
keeps its level. rpi-lgpio holds each line through the kernel, which takes it back when the process
ends and may then make it an input: the lamp goes dark until systemd has started the service again,
unless it is wired to be lit by an input (see README).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from appliance.errors import LampError
from appliance.types import Lamp

PINS = range(2, 28)
"""BCM numbers on the 40-pin header; 0 and 1 belong to the EEPROM of a HAT."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Where one lamp is wired.

    Attributes:
        bcm: Broadcom's number of the pin, not its place on the header.
        active_low: the lamp is lit while the pin is low.
    """

    bcm: int
    active_low: bool = False

    def level(self, lit: bool) -> bool:  # noqa: FBT001 - a lamp is lit or not
        """Whether the pin is to be high."""
        return lit != self.active_low


class GpioLamps:
    """Three LEDs, dark at the beginning; left as they were last set at the end.

    Args:
        pins: of every lamp.

    Raises:
        LampError: no library, no header, a pin that is in use or that there is not, or two lamps
            on one pin.
    """

    def __init__(self, pins: Mapping[Lamp, Pin]) -> None:
        check_pins(pins)
        self._pins = dict(pins)
        self._gpio, self._failures = _library()
        try:
            self._gpio.setwarnings(False)  # they go to stderr, and say what the next line raises
            self._gpio.setmode(self._gpio.BCM)
            for pin in self._pins.values():
                self._gpio.setup(pin.bcm, self._gpio.OUT, initial=int(pin.level(False)))
        except self._failures as e:
            wired = ", ".join(f"{lamp} on BCM {pin.bcm}" for lamp, pin in self._pins.items())
            raise LampError(f"lamps ({wired}) cannot be driven: {e}") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing: GPIO.cleanup() would make the pins inputs, and the last light is to stay."""

    def set(self, lit: Mapping[Lamp, bool]) -> None:
        try:
            for lamp, pin in self._pins.items():
                self._gpio.output(pin.bcm, int(pin.level(lit.get(lamp, False))))
        except self._failures as e:
            raise LampError(f"lamps: {e}") from e


def check_pins(pins: Mapping[Lamp, Pin]) -> None:
    """Refuse a wiring that cannot be.

    Raises:
        LampError: a lamp without a pin, a pin that is not on the header, two lamps on one pin.
    """
    for lamp in Lamp:
        if lamp not in pins:
            raise LampError(f"lamps: {lamp} has no pin")
        if pins[lamp].bcm not in PINS:
            raise LampError(
                f"lamps: {lamp} is on BCM {pins[lamp].bcm}, the header has {PINS[0]} to {PINS[-1]}"
            )
    taken: dict[int, Lamp] = {}
    for lamp, pin in pins.items():
        other = taken.setdefault(pin.bcm, lamp)
        if other is not lamp:
            raise LampError(f"lamps: {other} and {lamp} are both on BCM {pin.bcm}")


def _library() -> tuple[Any, tuple[type[Exception], ...]]:
    """RPi.GPIO or what stands in for it, and all that it may raise."""
    failures: tuple[type[Exception], ...] = (RuntimeError, ValueError, OSError)
    try:
        # Importing it looks for the board: RPi.GPIO raises RuntimeError where there is none.
        from RPi import GPIO
    except ImportError as e:
        raise LampError(
            f"RPi.GPIO cannot be imported ({e}): install python3-rpi-lgpio (Pi 5) or"
            " python3-rpi.gpio, and make the environment with --system-site-packages"
        ) from e
    except failures as e:
        raise LampError(f"lamps: no GPIO header: {e}") from e
    try:
        from lgpio import error
    except ImportError:  # the RPi.GPIO of old, which has no errors of its own
        return GPIO, failures
    return GPIO, (*failures, error)
