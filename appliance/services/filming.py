"""The camera's lamp for a command that films by itself: as with the watch service, lit before.

The lamps belong to the indicator service where there is one; where there is none, no watch service
films either, and the pins are free.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.config import Config
from appliance.errors import LampError
from appliance.link.nng import NngLink
from appliance.services.beacon import Beacon
from appliance.services.leds import lamps_of
from appliance.services.process import listens
from appliance.types import Lamp

_REDIAL_S = (0.05, 1.0)


@contextmanager
def camera_lamp(config: Config) -> Iterator[None]:
    """Lit in this block, dark after it. A node that is configured without LEDs has none to light.

    Raises:
        LampError: it cannot be lit, and nothing is to be filmed.
    """
    path = Path(config.local.run) / "indicator.ipc"
    if listens(path):
        with NngLink(f"ipc://{path}", redial_s=_REDIAL_S) as link:
            beacon = Beacon(link, connected=lambda: link.connected)
            if not beacon.camera(on=True):
                raise LampError("the indicator service does not light the camera's lamp")
            yield
            # Not if the block failed: a camera that could not be had may be another's, who films.
            beacon.camera(on=False)
    elif config.lamps.driver == "gpio":
        with lamps_of(config.lamps) as lamps:
            lamps.set({Lamp.CAMERA: True})
            try:
                yield
            finally:
                lamps.set({})
    else:
        yield
