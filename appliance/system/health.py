"""What state the node is in, and what else is not as it should be. Pure: two tables.

Enters: Vitals, measured by services/. Leaves: one NodeState for the lamps, and any number of flags
for the health message, `picket doctor` and the hint on the second lamp.
"""

from __future__ import annotations

import math
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
        hot: as `too_hot` says.
        throttled: the firmware slows the chip down now.
        under_voltage: the supply is too weak now.
        on_fallback: the accelerator that was asked for failed; the CPU does its work.
        clock_set: the wall clock is synchronised.
        lease_left_s: until the list in use must be given up, infinite without one.
        fps, fps_asked: frames processed per second, and what the sensor was asked for; 0 if
            unknown.
        outbox_share: of the outbox, in [0, 1].
        outbox_durable: what is in the outbox outlives a power cut.
        disk_free_mib: where the outbox lies.
        memory_free_mib: that the kernel can give away (MemAvailable).
        hidden_unsearchable: the list in use has no templates for part-hidden faces, or none that
            this node's models can be compared with.
        updating: root installs an update; the power must stay on.
        in_the_clear: the image could not encrypt the data partition to its board.
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
    hot: bool = False
    throttled: bool = False
    under_voltage: bool = False
    on_fallback: bool = False
    clock_set: bool = True
    lease_left_s: float = math.inf
    fps: float = 0.0
    fps_asked: float = 0.0
    outbox_share: float = 0.0
    outbox_durable: bool = True
    disk_free_mib: float = math.inf
    memory_free_mib: float = math.inf
    hidden_unsearchable: bool = False
    updating: bool = False
    in_the_clear: bool = False


HOT_FROM_C, HOT_UNTIL_C = 80.0, 75.0
"""A Pi 4 and 5 slow themselves down from 80 °C on, and hard at 85 °C (Raspberry Pi's documentation,
"Frequency management and thermal control"). The gap keeps the lamp from changing its mind."""
LEASE_SOON_S = 15 * 60.0
DISK_LOW_MIB = 64.0
MEMORY_LOW_MIB = 64.0
OUTBOX_NEARLY = 0.8
SLOW_BELOW = 0.5
"""Of the frames per second that were asked for."""
OFFLINE_AFTER_S = 60.0
"""Longer than a parked poll (20 s) and its answer time-out together."""
ALERT_SHOWN_S = 3.0
"""Long enough to be seen by somebody who is not looking at the box already."""

RULES: tuple[tuple[NodeState, Callable[[Vitals], bool]], ...] = (
    (NodeState.FAULT, lambda v: not v.balanced or v.outbox_full),
    (NodeState.ALERT, lambda v: v.since_alert_s < ALERT_SHOWN_S),
    (NodeState.UPDATING, lambda v: v.updating),
    (NodeState.HOT, lambda v: v.hot),
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


FLAGS: tuple[tuple[str, Callable[[Vitals], bool]], ...] = (
    ("unbalanced", lambda v: not v.balanced),
    ("outbox-full", lambda v: v.outbox_full),
    ("outbox-nearly-full", lambda v: v.outbox_share >= OUTBOX_NEARLY),
    ("outbox-not-durable", lambda v: not v.outbox_durable),
    ("list-refused", lambda v: v.list_refused),
    ("lease-ends-soon", lambda v: v.lease_left_s < LEASE_SOON_S),
    ("on-fallback", lambda v: v.on_fallback),
    ("too-hot", lambda v: v.hot),
    ("throttled", lambda v: v.throttled),
    ("under-voltage", lambda v: v.under_voltage),
    ("clock-not-set", lambda v: not v.clock_set),
    ("slow", lambda v: v.camera_on and 0 < v.fps < SLOW_BELOW * v.fps_asked),
    ("disk-nearly-full", lambda v: v.disk_free_mib < DISK_LOW_MIB),
    ("memory-low", lambda v: v.memory_free_mib < MEMORY_LOW_MIB),
    ("hidden-faces-not-searchable", lambda v: v.hidden_unsearchable),
    ("data-not-encrypted", lambda v: v.in_the_clear),
)
"""Every flag whose rule holds is told; the names are for machines and stay as they are."""

SERVICE = frozenset(
    {
        "outbox-nearly-full",
        "outbox-not-durable",
        "on-fallback",
        "under-voltage",
        "disk-nearly-full",
        "memory-low",
    }
)
"""Flags that a person with a screwdriver or a new card can do something about: the lamps' hint."""


def flags(vitals: Vitals) -> tuple[str, ...]:
    """What is not as it should be, in FLAGS' order; empty if all is well."""
    return tuple(name for name, holds in FLAGS if holds(vitals))


def wants_service(vitals: Vitals) -> bool:
    """Whether the second lamp is to hint that somebody should look after the node."""
    return not SERVICE.isdisjoint(flags(vitals))


def too_hot(celsius: float | None, *, before: bool) -> bool:
    """Whether the chip is too hot, with a gap between getting hot and being cool again.

    Args:
        celsius: None where no sensor says, which is not hot.
        before: what this said last time.
    """
    if celsius is None:
        return False
    return celsius >= (HOT_UNTIL_C if before else HOT_FROM_C)
