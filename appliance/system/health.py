"""What state the node is in. Pure: measurements in, NodeState out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from appliance.types import NodeState


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the state is judged by.

    Attributes:
        balanced: every face seen is counted as erased, alerted or held.
        outbox_full: an alert could not be kept.
        asked: the controller has answered at least once since boot.
        list_open: there is a list to match against.
        list_refused: the last list pushed was refused.
        camera_on: frames are being taken.
        frames: processed since the camera was switched on.
        since_answer_s: since the controller last answered anything.
        since_alert_s: since the last alert was decided, infinite if none was.
    """

    balanced: bool
    outbox_full: bool
    asked: bool
    list_open: bool
    list_refused: bool
    camera_on: bool
    frames: int
    since_answer_s: float
    since_alert_s: float


OFFLINE_AFTER_S = 60.0
"""Longer than a parked poll (20 s) and its answer time-out together."""
ALERT_SHOWN_S = 3.0
"""Long enough to be seen by somebody who is not looking at the box already."""

RULES: tuple[tuple[NodeState, Callable[[Vitals], bool]], ...] = (
    (NodeState.FAULT, lambda v: not v.balanced or v.outbox_full),
    (NodeState.ALERT, lambda v: v.since_alert_s < ALERT_SHOWN_S),
    (NodeState.NO_WATCHLIST, lambda v: not v.list_open and v.list_refused),
    (NodeState.STARTING, lambda v: not v.list_open and not v.asked),
    (NodeState.NO_WATCHLIST, lambda v: not v.list_open and v.since_answer_s > OFFLINE_AFTER_S),
    (NodeState.IDLE, lambda v: not v.list_open),
    (NodeState.STARTING, lambda v: not v.camera_on or v.frames == 0),
    (NodeState.OFFLINE, lambda v: v.since_answer_s > OFFLINE_AFTER_S),
    (NodeState.WATCHING, lambda _: True),
)
"""The first rule that holds names the state: worst first."""


def judge(vitals: Vitals) -> NodeState:
    """The state that these vitals are."""
    return next(state for state, holds in RULES if holds(vitals))
