"""`picket first-boot --blink`: a card that cannot be used says so, on the lamps, until power-off.

The indicator service needs a node.toml, and there is none yet: this takes its place.
"""

from __future__ import annotations

import threading

from appliance.config import Lamps
from appliance.indicator.patterns import CARD, SHUT, Rhythm, misprovisioned
from appliance.interfaces import Clock
from appliance.interfaces import Lamps as LampsSeam
from appliance.services.leds import lamps_of
from appliance.services.process import stop_on_signals
from appliance.system.clock import SystemClock
from appliance.types import Lamp

_TICK_S = 0.05


def blink_until_stopped(wiring: Lamps, *, shut: bool = False) -> None:
    """Blink until SIGTERM or SIGINT, and leave both lamps lit.

    Args:
        wiring: of the lamps.
        shut: the data partition is; else the card is not provisioned.

    Raises:
        LampError: the lamps cannot be driven.
    """
    stop = threading.Event()
    with stop_on_signals(stop), lamps_of(wiring) as lamps:
        blink(lamps, SystemClock(), stop, SHUT if shut else CARD)


def blink(lamps: LampsSeam, clock: Clock, stop: threading.Event, code: Rhythm = CARD) -> None:
    """Show that the card cannot be used, until `stop`.

    Args:
        lamps: driven; the caller closes them.
        clock: what the rhythm runs on.
        stop: ends it; both lamps stay lit, because dark would say that all is well.
        code: why, on the second lamp.

    Raises:
        OSError: a lamp could not be driven.
    """
    began_ns, shown = clock.boot_ns(), None
    while not stop.is_set():
        wanted = misprovisioned((clock.boot_ns() - began_ns) / 1e9, code)
        if wanted != shown:
            lamps.set(wanted)
            shown = wanted
        stop.wait(_TICK_S)
    lamps.set({Lamp.CAMERA: False, Lamp.STATUS: True, Lamp.ALERT: True})
