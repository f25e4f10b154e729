"""Which lamps a node has: one `if` per driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TextIO

from appliance.indicator.gpio import GpioLamps, Pin
from appliance.indicator.terminal import TerminalLamps
from appliance.indicator.unlit import Unlit
from appliance.interfaces import Lamps
from appliance.types import Lamp

DriverName = Literal["gpio", "terminal", "none"]


def open_lamps(
    driver: DriverName,
    *,
    pins: Mapping[Lamp, Pin],
    colours: Mapping[Lamp, str],
    stream: TextIO,
) -> Lamps:
    """The lamps that the configuration names.

    Args:
        driver: "gpio" drives LEDs, "terminal" paints them on `stream`, "none" shows nothing.
        pins: of every lamp, for "gpio".
        colours: of every lamp, for "terminal": names in terminal.COLOURS.
        stream: text; the caller closes it.

    Raises:
        LampError: the LEDs cannot be driven.
    """
    if driver == "gpio":
        return GpioLamps(pins)
    if driver == "terminal":
        return TerminalLamps(stream, colours=colours)
    return Unlit()
