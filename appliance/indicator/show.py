"""`picket leds --show`: the lamps as a node in some state would drive them.

Enters: lamps and states. Leaves: light. Nothing here measures or judges a state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appliance.indicator.patterns import MEANING
from appliance.indicator.player import Player
from appliance.interfaces import Clock, Lamps
from appliance.types import NodeState

SECONDS = 8.0
"""Two of the longest rhythms (4 s), from wherever one begins to look."""
_FILMING = frozenset({NodeState.WATCHING, NodeState.ALERT, NodeState.OFFLINE, NodeState.HOT})
"""States in which frames are usually taken, so that the camera's lamp is shown lit with them."""
_TICK_S = 0.05


def show(
    states: Sequence[NodeState],
    *,
    lamps: Lamps,
    clock: Clock,
    wait: Callable[[float], object],
    say: Callable[[str], object],
    seconds: float = SECONDS,
) -> None:
    """Walk through the states.

    Args:
        states: in this order.
        lamps: driven; the caller closes them.
        clock: what the rhythms run on.
        wait: lets so many seconds pass, as time.sleep does.
        say: takes one line per state.
        seconds: per state.

    Raises:
        OSError: a lamp could not be driven.
    """
    player = Player(lamps, clock)
    for state in states:
        saw, means = MEANING[state]
        say(f"{state}: {saw} - {means}")
        player.state = state
        player.camera_on = state in _FILMING
        ends_ns = clock.boot_ns() + round(seconds * 1e9)
        while clock.boot_ns() < ends_ns:
            player.step()
            wait(_TICK_S)
    lamps.set({})
