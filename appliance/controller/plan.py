"""Which node is to use which list now, by what operators ordered; and how far each node has come.

Enters: the store's rows, read at once. Leaves: a Plan, which does not change; when the store's
revision moves, the next one is read. No I/O beyond `read_plan`, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from appliance.controller.rollout import Rollout
from appliance.controller.store import Deployment, ListRow, NodeRow, Seen, Status, Store

SILENT_MS = 150_000
"""A node polls at least once a minute (wire.Poll.wait_ms) and tells its health as often."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a node is to use.

    Attributes:
        row: of the list, with its key.
    """

    deployment: Deployment
    row: ListRow


@dataclass(frozen=True, slots=True)
class Plan:
    """What the store said at one revision.

    Attributes:
        nodes: every node by name.
        running: deployments that were not stopped, newest first; some may be past their end.
        lists: the versions that those name, as far as their keys exist.
        wipes: nodes with an open order to wipe.
        rollout: of an update, that was not stopped.
    """

    nodes: Mapping[str, NodeRow]
    running: tuple[Deployment, ...]
    lists: Mapping[tuple[str, int], ListRow]
    wipes: frozenset[str]
    rollout: Rollout | None = None

    def admits(self, node: str) -> bool:
        """Whether a node may connect and ask: it has joined, and was not revoked."""
        row = self.nodes.get(node)
        return row is not None and row.status in {Status.JOINED, Status.QUARANTINED}

    def wanted(self, node: str, now_ms: int) -> Wanted | None:
        """What a node is to use now; None for nothing."""
        for deployment in self.running:
            if now_ms < deployment.until_ms and covers(deployment.nodes, node):
                row = self.lists.get((deployment.list_id, deployment.list_version))
                return None if row is None else Wanted(deployment, row)
        return None

    def over(self, now_ms: int) -> tuple[Deployment, ...]:
        """Deployments that run past their planned end."""
        return tuple(d for d in self.running if now_ms >= d.until_ms)


class Progress(StrEnum):
    """How far a node has come with the list that it is to use."""

    NOT_JOINED = "not joined"
    REVOKED = "revoked"
    QUARANTINED = "quarantined"
    IDLE = "idle"
    """It is to use none."""
    ACCEPTED = "accepted"
    REFUSED = "refused"
    SILENT = "silent"
    DELIVERED = "delivered"
    """The list was sent and the node has not said yet what it made of it."""
    WAITING = "waiting"
    """For the node to ask, or for the controller to run."""


def read_plan(store: Store) -> Plan:
    """The plan by the store.

    Raises:
        StoreError: the store cannot be read.
    """
    running = tuple(d for d in reversed(store.deployments.all()) if d.stopped_ms is None)
    lists: dict[tuple[str, int], ListRow] = {}
    for deployment in running:
        row = store.lists.get(deployment.list_id, deployment.list_version)
        if row is not None and row.content_key is not None:
            lists[row.list_id, row.version] = row
    return Plan(
        nodes={row.node: row for row in store.nodes.all()},
        running=running,
        lists=lists,
        wipes=frozenset(w.node for w in store.deployments.wipes() if w.done_ms is None),
        rollout=store.rollouts.current(),
    )


def covers(patterns: Iterable[str], node: str) -> bool:
    """Whether a node's name matches one of the patterns, such as "cam-01*"."""
    return any(fnmatchcase(node, pattern) for pattern in patterns)


def progress(row: NodeRow, wanted: Wanted | None, now_ms: int) -> Progress:  # noqa: PLR0911 - a table of cases, worst first
    """How far a node has come."""
    seen = row.seen
    if row.status is Status.INVITED:
        return Progress.NOT_JOINED
    if row.status is Status.REVOKED:
        return Progress.REVOKED
    if row.status is Status.QUARANTINED:
        return Progress.QUARANTINED
    if seen.at_ms == 0 or now_ms - seen.at_ms > SILENT_MS:
        return Progress.SILENT
    if wanted is None:
        return Progress.IDLE
    this = (wanted.row.list_id, wanted.row.version)
    if (seen.list_id, seen.list_version) == this:
        return Progress.ACCEPTED
    if (seen.offered_id, seen.offered_version) != this:
        return Progress.WAITING
    return Progress.REFUSED if seen.refused else Progress.DELIVERED


def steps_of(plan: Plan, deployment: Deployment, now_ms: int) -> dict[str, Progress]:
    """How far each node has come that a deployment means; revoked ones are none of it."""
    row = plan.lists.get((deployment.list_id, deployment.list_version))
    wanted = None if row is None else Wanted(deployment, row)
    return {
        node.node: progress(node, wanted, now_ms)
        for node in plan.nodes.values()
        if covers(deployment.nodes, node.node) and node.status is not Status.REVOKED
    }


def state_shown(seen: Seen) -> str:
    """The state that a node told, "" before its first health message."""
    return "" if seen.health is None else seen.health.state
