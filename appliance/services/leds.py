"""`picket leds --show`: the states on the real lamps, for whoever wires or reads a box."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from appliance.config import Config, Lamps, load
from appliance.errors import ConfigError, LampError
from appliance.indicator.drivers import open_lamps
from appliance.indicator.gpio import Pin
from appliance.indicator.show import show
from appliance.interfaces import Lamps as LampsSeam
from appliance.services.process import listens
from appliance.system.clock import SystemClock
from appliance.types import Lamp, NodeState


def lamps_of(wiring: Lamps) -> LampsSeam:
    """The lamps that a configuration names.

    Raises:
        LampError: they cannot be driven.
    """
    wired = {lamp: getattr(wiring, lamp.value) for lamp in Lamp}
    return open_lamps(
        wiring.driver,
        pins={lamp: Pin(led.bcm, active_low=led.active_low) for lamp, led in wired.items()},
        colours={lamp: led.colour for lamp, led in wired.items()},
        stream=sys.stdout,
    )


def show_states(names: Sequence[str], config: Path | None, *, seconds: float) -> None:
    """Show states, one after the other, until the last or Ctrl-C.

    Args:
        names: of states, or "all".
        config: whose lamps; None paints them in the terminal.
        seconds: for each.

    Raises:
        ConfigError: there is no such state.
        LampError: the lamps cannot be driven, or the indicator service has them: where two may
            drive a pin, one would darken the camera's lamp while the other's node films.
    """
    states = [state for name in names for state in _states(name)]
    with lamps_of(Lamps() if config is None else _free_lamps(load(config))) as lamps:
        show(
            states,
            lamps=lamps,
            clock=SystemClock(),
            wait=time.sleep,
            say=lambda line: sys.stdout.write(f"{line}\n"),
            seconds=seconds,
        )


def _free_lamps(config: Config) -> Lamps:
    taken = config.lamps.driver == "gpio" and listens(Path(config.local.run) / "indicator.ipc")
    if taken:
        raise LampError("the indicator service has the lamps: systemctl stop picket.target first")
    return config.lamps


def _states(name: str) -> tuple[NodeState, ...]:
    if name == "all":
        return tuple(NodeState)
    try:
        return (NodeState(name.lower()),)
    except ValueError as e:
        known = ", ".join(NodeState)
        raise ConfigError(f"no state '{name}'; there are {known}, or all") from e
