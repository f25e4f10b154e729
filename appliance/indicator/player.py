"""Plays the rhythm of the node's state on the lamps."""

from __future__ import annotations

import threading

from appliance.indicator.patterns import farewell, lit
from appliance.interfaces import Clock, Lamps
from appliance.types import Lamp, NodeState


class Player:
    """Sets the lamps when they are to change. `step` belongs in a worker, about every 50 ms.

    `state`, `hint` and `camera_on` may be set by any thread. A failing lamp raises out of whoever
    touches it: a node that cannot show that it is filming must not film.

    Args:
        lamps: driven under this player's lock only.
        clock: what the rhythms run on.

    Attributes:
        hint: the node works, but wants service (on the CPU since its accelerator failed, disk
            nearly full ...); shown on the second lamp in states that leave it dark.
    """

    def __init__(self, lamps: Lamps, clock: Clock) -> None:
        self._lamps, self._clock = lamps, clock
        self._lock = threading.Lock()
        self.hint = False
        self._state = NodeState.STARTING
        self._camera_on = False
        self._since_ns = clock.boot_ns()
        self._shown: dict[Lamp, bool] | None = None

    @property
    def state(self) -> NodeState:
        """What the node is doing; a new state begins its rhythm at the beginning."""
        return self._state

    @state.setter
    def state(self, state: NodeState) -> None:
        with self._lock:
            if state is not self._state:
                self._state, self._since_ns = state, self._clock.boot_ns()

    @property
    def camera_on(self) -> bool:
        """Whether frames are taken. Setting it drives the lamp before it returns."""
        return self._camera_on

    @camera_on.setter
    def camera_on(self, on: bool) -> None:
        with self._lock:
            self._camera_on = on
            self._show()

    def step(self) -> None:
        """Bring the lamps up to date.

        Raises:
            OSError: a lamp could not be driven.
        """
        with self._lock:
            self._show()

    def leave(self) -> None:
        """The last light: FAULT's two lamps steadily lit, the camera's lamp as it is.

        Called when the process that plays ends: nobody is left to blink, and dark would say
        that all is well. The next player begins anew.

        Raises:
            OSError: a lamp could not be driven.
        """
        with self._lock:
            self._set(farewell(camera_on=self._camera_on))

    def _show(self) -> None:
        t_s = (self._clock.boot_ns() - self._since_ns) / 1e9
        self._set(lit(self._state, camera_on=self._camera_on, hint=self.hint, t_s=t_s))

    def _set(self, wanted: dict[Lamp, bool]) -> None:
        if wanted != self._shown:
            self._lamps.set(wanted)
            self._shown = wanted
