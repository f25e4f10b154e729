"""How a roll-out stands: every node counted once, per stage; as a table and a bar, or as JSON.

Enters: the plan and what the store knows of nodes. Leaves: figures and text. No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from appliance.controller.output import table, when
from appliance.controller.plan import Plan
from appliance.controller.rollout import OPEN, Rollout, Runs, State, Step, Taken, stage_of
from appliance.controller.store import NodeRow, Status
from appliance.system.release import shown

SILENT_MS = 15 * 60_000
"""A link service asks every five minutes; one that was started again, within one."""
_BAR = 50


class Stands(StrEnum):
    """Where a node stands; one that the update was offered to stands where its Step says."""

    WATCHING = "watching"
    """Passed over until its deployment ends."""
    WAITING = "waiting"
    """For its turn, or to ask."""
    SILENT = "silent"


_COLUMNS: tuple[Step | Stands, ...] = (
    Stands.WAITING,
    Stands.WATCHING,
    *Step,
    Stands.SILENT,
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes:
        share: of the fleet up to and with it, in hundredths of a per cent.
        counts: nodes of this stage alone by where they stand.
        fetched: bytes that its fetching nodes have, of all that they need, in [0, 1].
    """

    share: int
    begun: bool
    counts: Mapping[str, int]
    fetched: float

    @property
    def nodes(self) -> int:
        """How many nodes come in this stage."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Tally:
    """A roll-out, counted.

    Attributes:
        stages: one each.
        nodes: where each node stands that is in one.
        why: what failed or hinders, by node.
    """

    rollout: Rollout
    stages: Sequence[Stage]
    nodes: Mapping[str, Step | Stands]
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def installed(self) -> int:
        """Nodes that run the update, or something newer."""
        return sum(at is Step.INSTALLED for at in self.nodes.values())

    @property
    def unfinished(self) -> list[str]:
        """Nodes of the stages begun that may still become something."""
        turn = {s.share for s in self.stages if s.begun}
        ends = (*OPEN, Stands.WAITING, Stands.WATCHING, Stands.SILENT)
        return [
            node
            for node, at in self.nodes.items()
            if at in ends and self.rollout.stages[stage_of(self.rollout, node) or 0] in turn
        ]


def count(
    rollout: Rollout,
    plan: Plan,
    taken: Sequence[Taken],
    runs: Mapping[str, Runs],
    now_ms: int,
) -> Tally:
    """Count every node of the fleet that could be told of an update."""
    known = {one.node: one for one in taken}
    staged: dict[int, list[str]] = {n: [] for n in range(len(rollout.stages))}
    nodes: dict[str, Step | Stands] = {}
    for row in plan.nodes.values():
        stage = stage_of(rollout, row.node)
        if stage is not None and row.status in {Status.JOINED, Status.QUARANTINED}:
            staged[stage].append(row.node)
            nodes[row.node] = _stands(
                rollout, plan, row, known.get(row.node), said=runs.get(row.node), now_ms=now_ms
            )
    stages = []
    for number, names in staged.items():
        fetching = [known[n].fetched for n in names if nodes[n] is Step.FETCHING]
        share = sum(fetching) / (len(fetching) * rollout.size) if fetching else 0.0
        counts = Counter(nodes[name].value for name in names)
        stages.append(Stage(rollout.stages[number], number <= rollout.stage, counts, share))
    why = {n: known[n].why for n in nodes if n in known and known[n].why}
    return Tally(rollout, stages, nodes, why)


def as_text(tally: Tally, fleet: str) -> str:
    """For people."""
    rollout = tally.rollout
    head = f"{shown(rollout.version)} over fleet {fleet}: {_state(rollout)}"
    lines = [head, f"bundle {rollout.sha256.hex()}, begun {when(rollout.started_ms)}", ""]
    used = [c for c in _COLUMNS if any(s.counts.get(c.value) for s in tally.stages)]
    rows = [
        (
            f"{'>' if number == rollout.stage else ' '} {percent(stage.share)}",
            stage.nodes,
            *(_cell(stage, column) for column in used),
        )
        for number, stage in enumerate(tally.stages)
    ]
    lines += [table(("  stage", "nodes", *(_named(c) for c in used)), rows), ""]
    lines.append(_bar(tally))
    lines += [
        f"{node}: {_named(tally.nodes[node])}: {why}"
        for node, why in sorted(tally.why.items())[:_MOST]
    ]
    if len(tally.why) > _MOST:
        lines.append(f"and {len(tally.why) - _MOST} more: --json")
    return "\n".join(lines)


_MOST = 20


def as_document(tally: Tally) -> dict[str, object]:
    """For machines."""
    rollout = tally.rollout
    return {
        "rollout": rollout.rollout,
        "version": shown(rollout.version),
        "sha256": rollout.sha256.hex(),
        "state": rollout.state.value,
        "why": rollout.why,
        "stage": rollout.stage + 1,
        "stages": [
            {"percent": s.share / 100, "begun": s.begun, "nodes": s.nodes, **s.counts}
            | {"fetched": round(s.fetched, 3)}
            for s in tally.stages
        ],
        "nodes": {node: at.value for node, at in tally.nodes.items()},
        "reasons": dict(tally.why),
    }


def percent(share: int) -> str:
    """A share of a fleet for people."""
    return f"{share / 100:g} %"


def _stands(
    rollout: Rollout,
    plan: Plan,
    row: NodeRow,
    taken: Taken | None,
    *,
    said: Runs | None,
    now_ms: int,
) -> Step | Stands:
    newer = said is not None and said.version >= rollout.version
    if taken is not None and taken.step is not Step.INSTALLED and taken.step not in OPEN:
        return taken.step
    if newer and (taken is None or taken.step is not Step.TRYING):
        return Step.INSTALLED
    heard_ms = max(said.at_ms if said else 0, taken.at_ms if taken else 0)
    if now_ms - heard_ms > SILENT_MS:
        return Stands.SILENT
    if taken is not None and taken.step in OPEN:
        return taken.step
    if not rollout.while_watching and plan.wanted(row.node, now_ms) is not None:
        return Stands.WATCHING
    return Stands.WAITING


def _named(at: Step | Stands) -> str:
    return "on trial" if at is Step.TRYING else at.value.replace("-", " ")


def _state(rollout: Rollout) -> str:
    if rollout.state is State.RUNNING:
        number = f"stage {rollout.stage + 1} of {len(rollout.stages)}"
        return f"running, {number} ({percent(rollout.stages[rollout.stage])})"
    because = f", because {rollout.why}" if rollout.why else ""
    return f"{rollout.state}{because}"


def _cell(stage: Stage, column: Step | Stands) -> str:
    number = stage.counts.get(column.value, 0)
    if column is Step.FETCHING and number:
        return f"{number} ({stage.fetched:.0%})"
    return str(number or "-")


def _bar(tally: Tally) -> str:
    """Installed, on the way, failed and the rest, each node its share of the width."""
    total = len(tally.nodes)
    if not total:
        return "no node has joined"
    counts = Counter(
        "#" if at is Step.INSTALLED else "+" if at in OPEN else "x" if at in Step else "."
        for at in tally.nodes.values()
    )
    drawn, so_far = "", 0
    for sign in "#+x.":
        so_far += counts[sign]
        drawn += sign * (round(so_far / total * _BAR) - len(drawn))
    return (
        f"[{drawn}] {tally.installed} of {total} run it"
        f" ({tally.installed / total:.0%}); # installed, + on the way, x failed"
    )
