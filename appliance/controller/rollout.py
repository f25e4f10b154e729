"""A roll-out of one update over the fleet, in stages: what is kept of it, and what follows from it.

Enters: what an operator ordered and what nodes say. Leaves: which nodes are in a stage, how far a
node has come by its last word, and whether too many have failed. Pure: no I/O, no clock.

A node belongs to a stage by a hash of its name and the roll-out's: nobody chooses who goes first,
and whoever was in an earlier stage is in every later one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from appliance.wire import Outcome, Upgrade, Version

WHOLE = 10_000
"""Stages are kept in hundredths of a per cent."""


class State(StrEnum):
    """Of a roll-out."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class Step(StrEnum):
    """How far a node has come; named as in wire.Outcome, where that has it."""

    OFFERED = "offered"
    FETCHING = "fetching"
    INSTALLING = "installing"
    TRYING = "trying"
    INSTALLED = "installed"
    ROLLED_BACK = "rolled-back"
    REFUSED = "refused"


_STEPS = {
    Outcome.FETCHING: Step.FETCHING,
    Outcome.INSTALLING: Step.INSTALLING,
    Outcome.ROLLED_BACK: Step.ROLLED_BACK,
    Outcome.REFUSED: Step.REFUSED,
}
FAILED = frozenset({Step.ROLLED_BACK, Step.REFUSED})
OPEN = frozenset({Step.OFFERED, Step.FETCHING, Step.INSTALLING, Step.TRYING})


@dataclass(frozen=True, slots=True)
class Rollout:
    """One update, and how it is to be rolled out.

    Attributes:
        rollout: its name.
        sha256, size: of the bundle, a file in the fleet's folder.
        stages: shares of the fleet, in hundredths of a per cent, rising.
        stage: which of them is under way, from 0.
        stop_after: it is paused when more nodes than that have failed.
        tolerated: failures that do not count any more: an operator went on after them.
        while_watching: nodes with a deployment are not passed over.
        why: it was paused or stopped.
        ended_ms: None while it is not stopped.
    """

    rollout: str
    version: Version
    sha256: bytes
    size: int
    stages: tuple[int, ...]
    stage: int
    stop_after: int
    while_watching: bool
    started_ms: int
    tolerated: int = 0
    state: State = State.RUNNING
    why: str = ""
    ended_ms: int | None = None

    @property
    def last(self) -> bool:
        """Whether no stage is left."""
        return self.stage == len(self.stages) - 1


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one node to which the update was offered.

    Attributes:
        fetched: bytes that were given to it.
        tries: how often it had tried this bundle before it was offered.
        why: it failed, or does not get on.
        at_ms: of its last word.
    """

    node: str
    step: Step
    at_ms: int
    fetched: int = 0
    tries: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Runs:
    """What a node's link service said last.

    Attributes:
        version: of the image that runs.
        at_ms: when.
    """

    node: str
    version: Version
    at_ms: int


class Rollouts(Protocol):
    """What the store keeps of roll-outs. One at most is not stopped."""

    def start(self, rollout: Rollout) -> None:
        """Begin one.

        Raises:
            RowRefusedError: another has not been stopped.
        """

    def all(self) -> tuple[Rollout, ...]:
        """Every roll-out, oldest first."""

    def current(self) -> Rollout | None:
        """The one that is not stopped."""

    def go_on(self, rollout: str, stage: int, *, now_ms: int) -> None:
        """Begin a later stage.

        Raises:
            RowRefusedError: it is stopped, or is in that stage or a later one already.
        """

    def pause(self, rollout: str, why: str, *, now_ms: int) -> bool:
        """Offer the update to nobody for now; False if it was paused already.

        Raises:
            RowRefusedError: it is stopped.
        """

    def resume(self, rollout: str, *, now_ms: int) -> bool:
        """Go on in spite of the failures so far; False if it was not paused.

        Raises:
            RowRefusedError: it is stopped.
        """

    def stop(self, rollout: str, why: str, *, now_ms: int) -> bool:
        """End it for good; False if it was stopped already."""

    def heard(self, rollout: str, taken: Sequence[Taken], *, now_ms: int) -> str:
        """Keep how far nodes have come; pauses the roll-out if too many have failed.

        Returns:
            Why it was paused, "" if it was not.
        """

    def taken(self, rollout: str, node: str | None = None) -> tuple[Taken, ...]:
        """How far each node has come, or one, by name."""

    def note_runs(self, runs: Sequence[Runs]) -> None:
        """Keep which versions run."""

    def runs(self) -> Mapping[str, Runs]:
        """Which version runs where, by node, of nodes that ever said."""


def place(rollout: str, node: str) -> int:
    """Where a node comes in a roll-out: 0 goes first, WHOLE - 1 last."""
    digest = hashlib.sha256(f"{rollout}\0{node}".encode()).digest()
    return int.from_bytes(digest) % WHOLE


def stage_of(rollout: Rollout, node: str) -> int | None:
    """The stage in which a node's turn comes; None if it is in none."""
    at = place(rollout.rollout, node)
    return next((n for n, share in enumerate(rollout.stages) if at < share), None)


def has_turn(rollout: Rollout, node: str) -> bool:
    """Whether a node is in the stage under way, or was in an earlier one."""
    return place(rollout.rollout, node) < rollout.stages[rollout.stage]


def next_stage(rollout: Rollout, nodes: Iterable[str], *, after: int) -> int:
    """The first stage after one that has nodes which no earlier one had; else the last."""
    stages = {stage_of(rollout, node) for node in nodes}
    later = (n for n in range(after + 1, len(rollout.stages)) if n in stages)
    return next(later, len(rollout.stages) - 1)


def advance(rollout: Rollout, taken: Taken, told: Upgrade, *, now_ms: int) -> Taken:
    """How far a node has come by its own word, which is taken only about this very bundle."""
    step = _step(rollout, taken, told)
    if step is None:
        return taken
    return replace(taken, step=step, why=told.why, at_ms=now_ms)


def _step(rollout: Rollout, taken: Taken, told: Upgrade) -> Step | None:
    about_this = told.bundle == rollout.sha256
    if about_this and told.outcome is Outcome.TRYING:
        return None if taken.step in FAILED else Step.TRYING
    if told.running >= rollout.version:
        return Step.INSTALLED
    if not about_this or taken.step in FAILED:
        return None
    # What became of this bundle in an earlier roll-out is none of this one's.
    if told.outcome is Outcome.ROLLED_BACK and told.tries <= taken.tries:
        return None
    return _STEPS.get(told.outcome)


def too_many(rollout: Rollout, failed: int) -> str:
    """Why a roll-out is to be paused, "" if it may go on.

    Args:
        rollout: that runs.
        failed: nodes that rolled back or refused.
    """
    if rollout.state is not State.RUNNING or failed - rollout.tolerated <= rollout.stop_after:
        return ""
    new = failed - rollout.tolerated
    return f"{new} {'node' if new == 1 else 'nodes'} failed, at most {rollout.stop_after} may"
