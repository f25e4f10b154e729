"""The table NodeState → rhythm of each lamp. Pure: state and time in, lit lamps out.

Who reads the box stands a few steps away, in daylight, perhaps colour-blind, and looks for a few
seconds. So:

* Rhythm carries the meaning, colour only helps. STATUS alone tells every state.
* Flashes are short (0.2 s) or long (0.6 s), Morse's ratio of 1 to 3, and are counted: at most
  four in a group, because more cannot be told apart at a glance, then a pause.
* Nothing flashes more than three times in a second (WCAG 2.2, 2.3.1), and no dark gap is shorter
  than 0.2 s, so that flashes do not run together.
* Every rhythm begins anew within 4 s.
* No rhythm is steady: a lamp that does not change for 4 s belongs to a node that hangs, or whose
  lamps were left lit when the service that plays them ended (`farewell`).
"""

from __future__ import annotations

from itertools import accumulate

from appliance.types import Lamp, NodeState

Rhythm = tuple[int, ...]
"""Tenths of a second: lit, dark, lit, dark ... and again; empty is always dark."""

DARK: Rhythm = ()
_SHORT, _LONG = 2, 6
_GAP, _PAUSE = 3, 13


def _group(*flashes: int) -> Rhythm:
    """Flashes with a gap between two and a pause at the end."""
    return (*tuple(t for lit in flashes[:-1] for t in (lit, _GAP)), flashes[-1], _PAUSE)


STATUS: dict[NodeState, Rhythm] = {
    NodeState.STARTING: (5, 5),
    NodeState.IDLE: (_SHORT, 38),
    NodeState.WATCHING: (28, _SHORT),
    NodeState.ALERT: (_SHORT, 2),
    NodeState.NO_WATCHLIST: _group(_SHORT, _SHORT),
    NodeState.OFFLINE: _group(_SHORT, _SHORT, _SHORT),
    NodeState.UPDATING: _group(_LONG, _SHORT),
    NodeState.HOT: _group(_SHORT, _SHORT, _SHORT, _SHORT),
    NodeState.FAULT: _group(_LONG, _LONG, _LONG),
}

ALERT: dict[NodeState, Rhythm] = {
    NodeState.ALERT: STATUS[NodeState.ALERT],
    NodeState.FAULT: STATUS[NodeState.FAULT],
}
"""The second lamp repeats the two states that want somebody to come; else it is dark, or HINT."""

HINT: Rhythm = (_SHORT, 38)
"""On the second lamp, in states that leave it dark: works, but wants service when there is time."""

CARD: Rhythm = (_LONG, _GAP, _SHORT, _GAP, _SHORT, 21)
"""On the second lamp, with FAULT on the first: the card's picket-provision.toml is missing or bad;
as long as FAULT's own, so that the two keep step."""

SHUT: Rhythm = (_LONG, _GAP, _SHORT, _GAP, _SHORT, _GAP, _SHORT, 16)
"""The same, where the data partition is encrypted to another board, or damaged."""

MEANING: dict[NodeState, tuple[str, str]] = {
    NodeState.STARTING: ("blinks evenly, once a second", "starting"),
    NodeState.IDLE: ("one short flash every 4 s", "no deployment: the camera is off"),
    NodeState.WATCHING: ("lit, winks every 3 s", "watching"),
    NodeState.ALERT: ("flickers, both lamps", "somebody on the list was seen"),
    NodeState.NO_WATCHLIST: ("2 short flashes, pause", "has no list that it may use"),
    NodeState.OFFLINE: ("3 short flashes, pause", "watching, but cannot reach the controller"),
    NodeState.UPDATING: ("1 long, 1 short flash, pause", "updating itself: leave the power on"),
    NodeState.HOT: ("4 short flashes, pause", "too hot: give it shade"),
    NodeState.FAULT: ("3 long flashes, pause, both lamps", "broken: take it out of service"),
}
"""What one sees, and what it means."""
_HINT_MEANS = "works, but wants service: `picket doctor` says why"
_CARD_MEANS = "the card is not provisioned: picket-status.txt on it says why"
_SHUT_MEANS = "the card's data stays shut, as in another board: picket-status.txt says why"


def rhythm(state: NodeState, lamp: Lamp, *, hint: bool = False) -> Rhythm:
    """What STATUS or ALERT does in a state; CAMERA follows the camera and has no rhythm.

    Args:
        state: what the node is doing.
        lamp: STATUS or ALERT.
        hint: the node works, but wants service.

    Raises:
        ValueError: asked for CAMERA.
    """
    if lamp is Lamp.CAMERA:
        raise ValueError("the camera lamp follows the camera, not the state")
    return STATUS[state] if lamp is Lamp.STATUS else ALERT.get(state, HINT if hint else DARK)


def misprovisioned(t_s: float, code: Rhythm = CARD) -> dict[Lamp, bool]:
    """Which lamps are lit while a card cannot be used: FAULT, and why on the second lamp.

    Args:
        t_s: since it began.
        code: CARD or SHUT.
    """
    status = _is_lit(STATUS[NodeState.FAULT], t_s)
    return {Lamp.CAMERA: False, Lamp.STATUS: status, Lamp.ALERT: _is_lit(code, t_s)}


def lit(state: NodeState, *, camera_on: bool, t_s: float, hint: bool = False) -> dict[Lamp, bool]:
    """Which lamps are lit.

    Args:
        state: what the node is doing.
        camera_on: frames are taken; lights CAMERA in every state.
        t_s: since the state began.
        hint: the node works, but wants service.
    """
    return {
        Lamp.CAMERA: camera_on,
        Lamp.STATUS: _is_lit(rhythm(state, Lamp.STATUS), t_s),
        Lamp.ALERT: _is_lit(rhythm(state, Lamp.ALERT, hint=hint), t_s),
    }


def farewell(*, camera_on: bool) -> dict[Lamp, bool]:
    """What is left lit by a service that ends: FAULT, without anybody to blink it."""
    return {Lamp.CAMERA: camera_on, Lamp.STATUS: True, Lamp.ALERT: True}


def table_markdown() -> str:
    """The table of the README; the last rows are no states, but come on top of one."""
    rows = [
        f"| {state} | {saw} | `{_drawn(STATUS[state])}` | {means} |"
        for state, (saw, means) in MEANING.items()
    ]
    rows.append(
        f"| (any) | second lamp: one short flash every 4 s | `{_drawn(HINT)}` | {_HINT_MEANS} |"
    )
    rows.append(
        f"| (fault) | second lamp: 1 long, 2 short flashes | `{_drawn(CARD)}` | {_CARD_MEANS} |"
    )
    rows.append(
        f"| (fault) | second lamp: 1 long, 3 short flashes | `{_drawn(SHUT)}` | {_SHUT_MEANS} |"
    )
    head = ["| state | status lamp | 0.1 s per sign, then again | means |", "|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _is_lit(rhythm: Rhythm, t_s: float) -> bool:
    if not rhythm:
        return False
    tenth = int(t_s * 10) % sum(rhythm)
    phase = next(i for i, end in enumerate(accumulate(rhythm)) if tenth < end)
    return phase % 2 == 0


def _drawn(rhythm: Rhythm) -> str:
    return "".join(("▁" if i % 2 else "█") * tenths for i, tenths in enumerate(rhythm))
