"""What the controller keeps: alerts, each once; what is missing; how the nodes are.

The one in memory is lost when the controller ends. A database takes its place behind the same
Register; "stored" then means committed, because the node deletes what is acknowledged.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from appliance.errors import ControllerError
from appliance.wire import Alert, Health


class Stored(StrEnum):
    """Whether an alert was kept."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """Another alert with the same (node, boot, sequence) is stored, and stays: a node was cloned
    or an alert forged."""


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """Alerts that a node numbered and the controller never got: a provable loss.

    Attributes:
        first: lowest missing sequence.
        last: highest missing sequence of this gap.
    """

    node: str
    boot: bytes
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one alert.

    Attributes:
        gap: what was missing right before a new one, None if nothing was.
    """

    stored: Stored
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """The last that was heard of a node.

    Attributes:
        health: its last health message, None before the first.
        list_id: of the list in use at its last poll, "" for none.
        list_version: of the same.
        refused: why it did not take the last push, "" if it did.
    """

    node: str
    boot: bytes
    health: Health | None = None
    list_id: str = ""
    list_version: int = 0
    refused: str = ""


class Register(Protocol):
    """Where the endpoints keep things. Thread-safe."""

    def store(self, alerts: Sequence[Alert]) -> tuple[Receipt, ...]:
        """Keep alerts, all or none; when this returns they are kept.

        Returns:
            What became of each, in their order.

        Raises:
            ControllerError: they cannot be kept.
        """

    def heard(self, health: Health) -> None:
        """Keep a node's health in place of the one before."""

    def listed(
        self, node: str, boot: bytes, *, list_id: str, list_version: int, refused: str
    ) -> None:
        """Keep which list a node has in use, and why it refused the last one."""

    def nodes(self) -> tuple[NodeRecord, ...]:
        """Every node that was heard of, by name."""

    def gaps(self) -> tuple[Gap, ...]:
        """What is missing, in order."""

    @property
    def alerts(self) -> int:
        """How many alerts are kept."""


@dataclass(slots=True)
class _Boot:
    """The alerts of one boot of one node by sequence, and the sequences in order."""

    kept: dict[int, Alert] = field(default_factory=dict)
    sequences: list[int] = field(default_factory=list)


class MemoryRegister:
    """Implements Register.

    Args:
        capacity: alerts kept at most; then no more are taken, and wait in the nodes' outboxes.
        max_nodes: nodes remembered at most.
    """

    def __init__(self, *, capacity: int = 1_000_000, max_nodes: int = 10_000) -> None:
        self._capacity, self._max_nodes = capacity, max_nodes
        self._lock = threading.Lock()
        self._boots: dict[tuple[str, bytes], _Boot] = {}
        self._nodes: dict[str, NodeRecord] = {}
        self._alerts = 0

    @property
    def alerts(self) -> int:
        with self._lock:
            return self._alerts

    def store(self, alerts: Sequence[Alert]) -> tuple[Receipt, ...]:
        with self._lock:
            # Duplicates need no room, but nodes wait for an answer: near the bound is full.
            if self._alerts + len(alerts) > self._capacity:
                raise ControllerError(f"the register holds {self._capacity} alerts and is full")
            return tuple(self._keep(alert) for alert in alerts)

    def heard(self, health: Health) -> None:
        with self._lock:
            record = self._record(health.node, health.boot)
            self._nodes[health.node] = replace(record, health=health)

    def listed(
        self, node: str, boot: bytes, *, list_id: str, list_version: int, refused: str
    ) -> None:
        with self._lock:
            self._nodes[node] = replace(
                self._record(node, boot),
                list_id=list_id,
                list_version=list_version,
                refused=refused,
            )

    def nodes(self) -> tuple[NodeRecord, ...]:
        with self._lock:
            return tuple(self._nodes[name] for name in sorted(self._nodes))

    def gaps(self) -> tuple[Gap, ...]:
        with self._lock:
            return tuple(
                Gap(node, boot, before + 1, after - 1)
                for (node, boot), held in sorted(self._boots.items(), key=lambda item: item[0])
                for before, after in zip([0, *held.sequences], held.sequences, strict=False)
                if after - before > 1
            )

    def _keep(self, alert: Alert) -> Receipt:
        held = self._boots.setdefault((alert.node, alert.boot), _Boot())
        before = held.kept.get(alert.sequence)
        if before is not None:
            return Receipt(Stored.DUPLICATE if before == alert else Stored.CONFLICT)
        held.kept[alert.sequence] = alert
        index = bisect_right(held.sequences, alert.sequence)
        previous = held.sequences[index - 1] if index else 0
        held.sequences.insert(index, alert.sequence)
        self._alerts += 1
        if alert.sequence - previous <= 1:
            return Receipt(Stored.NEW)
        return Receipt(Stored.NEW, Gap(alert.node, alert.boot, previous + 1, alert.sequence - 1))

    def _record(self, node: str, boot: bytes) -> NodeRecord:
        record = self._nodes.get(node)
        if record is None and len(self._nodes) >= self._max_nodes:
            raise ControllerError(f"the register knows {self._max_nodes} nodes and is full")
        if record is None or record.boot != boot:
            return NodeRecord(node, boot)
        return record
