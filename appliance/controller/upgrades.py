"""What a node's link service is told about updates: whether there is one for it, and its parts.

A node learns of an update, and gets a part of it, only when its turn has come (rollout.py), it is
trusted, runs something older, has not failed with this one, and has no deployment, unless the
operator said that this does not matter. Both questions are held against that anew: a pause, or a
deployment that begins, ends a fetch at the next part.

At most AT_ONCE nodes fetch at the same time; the others are told that there is nothing yet. What
nodes say is kept in memory and written a moment later; what is lost with the process they say
again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from appliance.controller.bundles import PART_BYTES, Bundles
from appliance.controller.events import Notify, event
from appliance.controller.office import Office
from appliance.controller.plan import Plan
from appliance.controller.rollout import (
    FAILED,
    Rollout,
    Rollouts,
    Runs,
    State,
    Step,
    Taken,
    advance,
    has_turn,
)
from appliance.controller.store import Status
from appliance.errors import StoreError
from appliance.interfaces import Clock
from appliance.system.release import shown
from appliance.wire import Ack, Answer, Bundle, Deny, Outcome, Part, Pull, Upgrade, printable

AT_ONCE = 32
"""At a node's pace of 1 MiB/s half a core of the controller's: 105 MB over TLS took 1.5 s of it."""
_TURN_NS = 60 * 1_000_000_000
"""A node that has asked for no part for so long makes room."""
_PART_NS, _AHEAD = 20_000_000, 16
"""A node takes an eighth of a second for a part, unless it was held up; one that asks for many
much faster than that is none of ours."""
_BUSY = frozenset({Outcome.INSTALLING, Outcome.TRYING})
_FETCHES = frozenset({Step.OFFERED, Step.FETCHING})


class Upgrades:
    """`answer` and `part` are called by the receiving thread, `flush` by one other.

    Args:
        office: has the plan in force.
        rollouts: what is kept.
        bundles: gives parts; None where updates cannot be given out.
        clock: for turns.
        utc_ms: wall clock.
        notify: told of each event.
    """

    def __init__(
        self,
        office: Office,
        rollouts: Rollouts,
        *,
        bundles: Bundles | None,
        clock: Clock,
        utc_ms: Callable[[], int],
        notify: Notify,
    ) -> None:
        self._office, self._rollouts, self._bundles = office, rollouts, bundles
        self._clock, self._utc_ms, self._notify = clock, utc_ms, notify
        self._lock = threading.Lock()
        self._rollout = ""
        self._taken: dict[str, Taken] = {}
        self._runs: dict[str, Runs] = {}
        self._unwritten: set[str] = set()
        self._unwritten_runs: set[str] = set()
        self._turns: dict[str, int] = {}
        self._paid_ns: dict[str, int] = {}
        self._missing = ""

    def answer(self, told: Upgrade) -> Answer:
        """Whether there is an update for a node; what it says of the last one is kept."""
        told_ms, plan = self._utc_ms(), self._office.plan
        with self._lock:
            self._runs[told.node] = Runs(told.node, told.running, told_ms)
            self._unwritten_runs.add(told.node)
            rollout = self._current(plan)
            if rollout is None:
                return Ack()
            about_this = told.bundle == rollout.sha256
            taken = self._of(rollout, told.node, elsewhere=about_this)
            if taken is not None:
                taken = self._hear(rollout, taken, told)
            if told.outcome in _BUSY or not self._may_have(plan, rollout, told.node, taken):
                return Ack()
            whole = taken is not None and taken.fetched == rollout.size
            if self._missing or not (whole or self._has_turn(told.node)):
                return Ack()
            if taken is None:  # before it is offered: another controller may know better
                taken = self._of(rollout, told.node, elsewhere=True)
                if taken is not None and taken.step in FAILED:
                    return Ack()
            if taken is None or taken.step not in _FETCHES:  # or an installation was interrupted
                tries = told.tries if about_this else 0
                self._keep(rollout, Taken(told.node, Step.OFFERED, told_ms, tries=tries))
        return Bundle(rollout.version, rollout.sha256, rollout.size, PART_BYTES)

    def part(self, asked: Pull) -> Answer:
        """A part of the update that is offered to this node."""
        plan, now_ns = self._office.plan, self._clock.boot_ns()
        with self._lock:
            rollout = self._current(plan)
            if rollout is None or asked.bundle != rollout.sha256:
                return Deny("no such update is offered")
            taken = self._of(rollout, asked.node, elsewhere=True)
            offered = taken is not None and taken.step in _FETCHES
            if taken is None or not offered or not self._may_have(plan, rollout, asked.node, taken):
                return Deny("no such update is offered")
            paid_ns = max(self._paid_ns.get(asked.node, now_ns), now_ns)
            if paid_ns - now_ns >= _AHEAD * _PART_NS:
                return Deny("parts are asked for too fast")
            content = None
            if self._bundles is not None and asked.index * PART_BYTES < rollout.size:
                content = self._bundles.part(rollout.sha256, asked.index)
            if content is None:
                return Deny(f"the update has no part {asked.index} here")
            self._paid_ns[asked.node], self._turns[asked.node] = paid_ns + _PART_NS, now_ns
            fetched = min(rollout.size, asked.index * PART_BYTES + len(content))
            if fetched == rollout.size:
                del self._turns[asked.node]
            self._keep(
                rollout,
                replace(taken, step=Step.FETCHING, fetched=fetched, why="", at_ms=self._utc_ms()),
            )
        return Part(asked.index, content)

    def flush(self) -> None:
        """Write what was heard; the roll-out is paused here when too many have failed.

        Raises:
            StoreError: it could not be written, and will be by the next flush.
        """
        with self._lock:
            rollout, names, self._unwritten = self._rollout, self._unwritten, set()
            changed = [self._taken[name] for name in names]
            running, self._unwritten_runs = self._unwritten_runs, set()
            runs = [self._runs[name] for name in running]
        try:
            self._rollouts.note_runs(runs)
            why = self._rollouts.heard(rollout, changed, now_ms=self._utc_ms()) if changed else ""
        except StoreError:
            with self._lock:
                self._unwritten_runs |= running
                if self._rollout == rollout:
                    self._unwritten |= names
            raise
        if why:
            self._office.refresh()
            self._notify(event("paused", rollout=rollout, reason=why))

    def prepare(self) -> None:
        """After the plan has changed: open the bundle that it names."""
        rollout = self._office.plan.rollout
        running = rollout is not None and rollout.state is State.RUNNING
        if rollout is None or not running or self._bundles is None:
            missing = "" if rollout is None or not running else "no updates are given out here"
        else:
            missing = self._bundles.prepare(rollout.sha256, rollout.size)
        with self._lock:
            told, self._missing = self._missing, missing
        if missing and missing != told:
            self._notify(event("missing", reason=missing))

    def _current(self, plan: Plan) -> Rollout | None:
        """The roll-out in force; what is known of another is forgotten."""
        rollout = plan.rollout
        if rollout is not None and rollout.rollout != self._rollout:
            self._taken = {one.node: one for one in self._rollouts.taken(rollout.rollout)}
            self._rollout = rollout.rollout
            self._unwritten.clear()
            self._turns.clear()
        return rollout

    def _of(self, rollout: Rollout, node: str, *, elsewhere: bool) -> Taken | None:
        """What became of a node; `elsewhere`: by the store, too, for another controller's word."""
        if elsewhere and node not in self._taken:
            for one in self._rollouts.taken(rollout.rollout, node):
                self._taken[node] = one
        return self._taken.get(node)

    def _hear(self, rollout: Rollout, taken: Taken, told: Upgrade) -> Taken:
        after = advance(rollout, taken, told, now_ms=self._utc_ms())
        after = replace(after, why=printable(after.why))
        if replace(after, at_ms=taken.at_ms) != taken:
            self._keep(rollout, after)
        return after

    def _keep(self, rollout: Rollout, taken: Taken) -> None:
        before = self._taken.get(taken.node)
        self._taken[taken.node] = taken
        self._unwritten.add(taken.node)
        if before is None or before.step is not taken.step:
            named = {"node": taken.node, "version": shown(rollout.version)}
            why = {"reason": taken.why} if taken.why else {}
            self._notify(event("update", **named, step=taken.step.value, **why))

    def _may_have(self, plan: Plan, rollout: Rollout, node: str, taken: Taken | None) -> bool:
        runs = self._runs.get(node)
        return (
            rollout.state is State.RUNNING
            and plan.nodes[node].status is Status.JOINED
            and node not in plan.wipes
            and has_turn(rollout, node)
            and (runs is None or runs.version < rollout.version)
            and (taken is None or taken.step not in FAILED)
            and (rollout.while_watching or plan.wanted(node, self._utc_ms()) is None)
        )

    def _has_turn(self, node: str) -> bool:
        """Whether a node may begin to fetch, or go on; most wait until others are done."""
        now_ns = self._clock.boot_ns()
        self._turns = {one: at for one, at in self._turns.items() if now_ns - at < _TURN_NS}
        if node not in self._turns and len(self._turns) >= AT_ONCE:
            return False
        self._turns[node] = now_ns
        return True
