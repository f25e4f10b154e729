"""What the controller keeps, as a seam: nodes, lists, deployments, alerts, roll-outs, record.

Enters: what operators order and what nodes report. Leaves: the same, after a restart too. When a
method that writes returns, the row is committed; that is what lets the controller acknowledge.
Whatever an operator changes is written to the record in the same transaction, and moves
`revision`, by which a running `picketctl serve` notices what another `picketctl` did.

Nothing in here decides: who may have which list is plan.py's, what a node is told endpoints.py's.
The one implementation, sql.py, runs on SQLite and on PostgreSQL. Times are milliseconds since
1970, UTC, and are given by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from appliance.controller.rollout import Rollouts
from appliance.wire import Alert, Health


class Status(StrEnum):
    """How far a node is trusted."""

    INVITED = "invited"
    JOINED = "joined"
    QUARANTINED = "quarantined"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was last heard of a node; a running controller writes it about once a second.

    Attributes:
        boot: of the watch service, b"" before its first hello.
        at_ms: when, 0 for never.
        health: its last health message.
        list_id, list_version, lease_left_s: the list in use, "" and 0 for none.
        refused: why it did not take the last push, "" if it did.
        offered_id, offered_version: the list that was last sent to it, "" and 0 for none.
    """

    node: str
    boot: bytes = b""
    at_ms: int = 0
    health: Health | None = None
    list_id: str = ""
    list_version: int = 0
    lease_left_s: int = 0
    refused: str = ""
    offered_id: str = ""
    offered_version: int = 0


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node of the fleet.

    Attributes:
        reason: why it is quarantined or revoked.
        token_hash: SHA-256 of its one-time token, None without one.
        token_expires_ms: after which the token is worth nothing.
        join_digest: SHA-256 of the request that used the token up, None while it is unused.
        watch_key: Ed25519 public key, None before it joined.
        serials: of its certificates, oldest first.
    """

    node: str
    status: Status
    reason: str
    token_hash: bytes | None
    token_expires_ms: int
    join_digest: bytes | None
    watch_key: bytes | None
    serials: tuple[int, ...]
    seen: Seen


@dataclass(frozen=True, slots=True)
class ListRow:
    """One version of a watchlist, without its pieces.

    Attributes:
        head: header and signatures, as the authorities signed it.
        digests: SHA-256 of each piece, one after the other.
        content_key: opens the pieces; None once it was destroyed.
        counts: how many subjects of each category, and of each source of pictures.
    """

    list_id: str
    version: int
    deployment: str
    head: bytes
    digests: bytes
    content_key: bytes | None = field(repr=False)
    counts: Mapping[str, int]
    added_ms: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """An authorised use of one list, at some nodes, until a time.

    Attributes:
        list_id, list_version: the version that nodes are to use.
        nodes: patterns of node names, such as "cam-01*".
        until_ms: planned end.
        lease_s: for how long a node may go on without hearing from the controller.
        stopped_ms: actual end, None while it runs.
        ended_by: what ended it: "stop" or "until", "" while it runs.
    """

    deployment: str
    list_id: str
    list_version: int
    nodes: tuple[str, ...]
    until_ms: int
    authority: str
    purpose: str
    location: str
    lease_s: int
    started_ms: int
    stopped_ms: int | None = None
    ended_by: str = ""


@dataclass(frozen=True, slots=True)
class Wipe:
    """An order to one node to overwrite its list and forget its ciphertext."""

    number: int
    node: str
    ordered_ms: int
    done_ms: int | None


@dataclass(frozen=True, slots=True)
class Arrival:
    """One row of a report, after it was opened as well as it could be.

    Attributes:
        sealed: as it came.
        alert: None if it could not be opened.
        fault: why not, "" if it was.
    """

    node: str
    boot: bytes
    sequence: int
    sealed: bytes
    alert: Alert | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class KeptAlert:
    """An arrival as it is kept."""

    arrival: Arrival
    received_ms: int


class Stored(StrEnum):
    """Whether an arrival was kept."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """Other bytes with the same (node, boot, sequence) are kept already, and stay: a node was
    cloned, a card's image restored, or an alert forged."""


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """Alerts first to last that a node numbered and the controller never got: a provable loss."""

    node: str
    boot: bytes
    first: int
    last: int


@dataclass(frozen=True, slots=True, order=True)
class Conflict:
    """A number that came twice with different bytes."""

    node: str
    boot: bytes
    sequence: int
    received_ms: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one arrival.

    Attributes:
        gap: what was missing right before a new one, None if nothing was.
    """

    stored: Stored
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the lawful record, which can be added to and not be changed.

    Attributes:
        kind: such as "deployment-started".
        about: what it is about, plain JSON values.
        number: its place, 0 before it is kept.
    """

    at_ms: int
    kind: str
    about: Mapping[str, object] = field(default_factory=dict)
    number: int = 0


class Nodes(Protocol):
    """Who belongs to the fleet."""

    def invite(
        self, node: str, *, token_hash: bytes, expires_ms: int, now_ms: int, again: bool = False
    ) -> None:
        """Expect a node to join; replaces an earlier token of a node that has not joined yet.

        Args:
            node: its name.
            token_hash: SHA-256 of its token.
            expires_ms: after which the token is worth nothing.
            now_ms: for the record.
            again: also if it has joined already: it is a stranger from now on, until it joins.

        Raises:
            RowRefusedError: it has joined already, or was revoked.
        """

    def join(
        self, node: str, *, join_digest: bytes, watch_key: bytes, serial: int, now_ms: int
    ) -> None:
        """The token was used: the node is part of the fleet.

        Raises:
            RowRefusedError: it is not invited, or was used by another request meanwhile.
        """

    def certified(self, node: str, serial: int, *, now_ms: int) -> None:
        """Note the serial of one more certificate of a node."""

    def set_status(self, node: str, status: Status, reason: str, *, now_ms: int) -> None:
        """Quarantine, confirm or revoke a node; the same again changes nothing.

        Raises:
            RowRefusedError: no such node, or it was revoked, which is for ever.
        """

    def heard(self, seen: Sequence[Seen]) -> None:
        """Keep what was last heard of nodes in place of what was heard before."""

    def get(self, node: str) -> NodeRow | None:
        """One node."""

    def all(self) -> tuple[NodeRow, ...]:
        """Every node, by name."""


class Lists(Protocol):
    """Watchlists as ciphertext, and the keys that open them while they are in use."""

    def add(self, row: ListRow, pieces: Iterable[bytes]) -> bool:
        """Keep a version with its pieces, all or nothing.

        Returns:
            False if it was kept already.

        Raises:
            RowRefusedError: this version is kept with another head.
        """

    def get(self, list_id: str, version: int) -> ListRow | None:
        """One version."""

    def all(self) -> tuple[ListRow, ...]:
        """Every version, by list and version."""

    def piece(self, list_id: str, version: int, index: int) -> bytes | None:
        """The ciphertext of one piece, None if there is none."""


class Deployments(Protocol):
    """What was authorised, and wipe orders."""

    def start(self, deployment: Deployment, *, now_ms: int) -> bool:
        """Begin a deployment, or change one that runs: a newer list, other nodes, another end.

        Returns:
            False if it runs exactly like this already.
        """

    def stop(self, deployment: str, *, ended_by: str, now_ms: int) -> bool:
        """End it and destroy its lists' keys and pieces; False if it does not run.

        Raises:
            RowRefusedError: no such deployment.
        """

    def all(self) -> tuple[Deployment, ...]:
        """Every deployment, oldest first."""

    def order_wipe(self, nodes: Sequence[str], *, now_ms: int) -> None:
        """Order nodes to wipe; a node whose order is still open gets no second one."""

    def wiped(self, node: str, *, now_ms: int) -> None:
        """A node has done as ordered."""

    def wipes(self) -> tuple[Wipe, ...]:
        """Every order, oldest first."""


class Alerts(Protocol):
    """What nodes reported, each alert once."""

    def put(self, arrivals: Sequence[Arrival], *, now_ms: int) -> tuple[Receipt, ...]:
        """Keep arrivals, all or none; returns after the commit.

        Returns:
            What became of each, in their order.
        """

    def since(self, received_ms: int, *, most: int) -> tuple[KeptAlert, ...]:
        """Those received at or after a time, oldest first, at most `most`."""

    def newest(self, most: int) -> tuple[KeptAlert, ...]:
        """The newest, oldest of them first."""

    def gaps(self) -> tuple[Gap, ...]:
        """Every number that is missing below one that is there, in order."""

    def conflicts(self) -> tuple[Conflict, ...]:
        """Every number that came with different bytes, in order."""

    def counts(self) -> tuple[int, int]:
        """(alerts kept, those of them that could not be opened)."""


class Records(Protocol):
    """The lawful record. Most of it is written by the methods that change what it tells of."""

    def append(self, lines: Sequence[Record]) -> None:
        """Add lines, all or none; their numbers are given here."""

    def after(self, number: int) -> tuple[Record, ...]:
        """Every line with a higher number, in order; 0 gives all."""


class Store(AbstractContextManager["Store"], Protocol):
    """All of it. Thread-safe; several processes may share one.

    Every method raises StoreError if the store cannot be reached.
    """

    @property
    def nodes(self) -> Nodes: ...
    @property
    def lists(self) -> Lists: ...
    @property
    def deployments(self) -> Deployments: ...
    @property
    def alerts(self) -> Alerts: ...
    @property
    def records(self) -> Records: ...
    @property
    def rollouts(self) -> Rollouts: ...

    def revision(self) -> int:
        """Changes whenever an operator, or a node that joins, changed anything."""
