"""The watch service's line to the lamps, and the rule that nothing is filmed in the dark.

The lamps belong to the indicator service. It answers a Show after the lamps were set, so the
camera is switched on only after its lamp was seen to be lit, and is switched off as soon as the
indicator service is gone or refuses: a node that cannot show that it is filming must not film.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from appliance.errors import LinkError
from appliance.interfaces import Link
from appliance.link.question import ask
from appliance.types import NodeState
from appliance.wire import Ack, Show

log = logging.getLogger(__name__)

_ANSWER_S = 2.0
"""Below the indicator's own patience (5 s of silence) and below any watchdog's."""


class Beacon:
    """Tells the indicator service what to show. Thread-safe.

    Args:
        link: to the indicator service.
        connected: whether its process is there at all; asked for every frame.
    """

    def __init__(self, link: Link, *, connected: Callable[[], bool]) -> None:
        self._link, self._connected = link, connected
        self._lock = threading.Lock()
        self._state = NodeState.STARTING
        self._camera_on = self._hint = False
        self._shown = False

    @property
    def lit(self) -> bool:
        """Whether the indicator is there and has done what it was told last."""
        return self._shown and self._connected()

    def camera(self, on: bool) -> bool:  # noqa: FBT001 - a lamp is on or off
        """Light or darken the camera lamp; True if the indicator says that it did.

        A lamp that could not be lit is shown dark from then on: nothing is switched on.
        """
        with self._lock:
            self._camera_on = on
            done = self._tell()
            self._camera_on = on and done
            return done

    def show(self, state: NodeState, *, hint: bool = False) -> bool:
        """Show a state; to be repeated every second, or the indicator shows FAULT by itself.

        Args:
            state: what the node is doing.
            hint: it works, but wants service.
        """
        with self._lock:
            self._state, self._hint = state, hint
            return self._tell()

    def _tell(self) -> bool:
        before = self._shown
        try:
            ask(self._link, Show(self._state, self._camera_on, self._hint), Ack, _ANSWER_S)
        except LinkError as e:
            self._shown = False
            if before:
                log.error("the lamps cannot be driven, so nothing is filmed: %s", e)  # noqa: TRY400 - the line says it all
        else:
            self._shown = True
            if not before:
                log.info("the lamps are driven")
        return self._shown
