"""What a field test brought back: who walked when, and what the controller recorded.

Enters: actors.csv and JSON Lines. Leaves: Walks and Alerts, each alert once. See walkthrough.py.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from appliance.errors import EvaluationError
from appliance.evaluation.protocol import read_table

_OWN_COLUMNS = frozenset({"subject", "from", "to", "node", "listed"})
_MAX_LINE = 64 * 1024
_YES = {"yes": True, "no": False, "": True}
_MS = 1000


class Alert(Struct, frozen=True):
    """The fields of a recorded alert that matter here; there are more."""

    event: Literal["alert"]
    node: str
    boot: str
    sequence: Annotated[int, Meta(ge=0)]
    subject: str
    decided_utc_ms: int | None


@dataclass(frozen=True, slots=True)
class Walk:
    """One actor walking past the node once."""

    subject: str
    start_ms: int
    end_ms: int
    node: str
    listed: bool
    groups: dict[str, str]


@dataclass(slots=True)
class Recorded:
    """Alerts of the controller's record.

    Attributes:
        alerts: with a time, each once.
        undated: had no wall-clock time: the node's clock was not synchronised.
        repeated: came more than once, as an alert may.
    """

    alerts: list[Alert] = field(default_factory=list)
    undated: int = 0
    repeated: int = 0


def read_walks(path: Path) -> list[Walk]:
    """The rows of actors.csv.

    Raises:
        EvaluationError: names the row and what is wrong with it.
    """
    walks = [
        _walk(row, f"{path}: row {number}")
        for number, row in enumerate(read_table(path, ("subject", "from", "to")), 2)
    ]
    if not any(walk.listed for walk in walks):
        raise EvaluationError(f"{path}: no walk of a listed actor")
    _refuse_overlaps(walks, path)
    return walks


def read_alerts(path: Path) -> Recorded:
    """The alerts among the controller's events; other events are passed over.

    Raises:
        EvaluationError: unreadable, or a line is no event.
    """
    recorded = Recorded()
    seen: set[tuple[str, str, int]] = set()
    for number, line in _lines(path):
        try:
            if json.loads(line).get("event") != "alert":
                continue
            alert = msgspec.json.decode(line, type=Alert)
        except (ValueError, AttributeError, RecursionError, msgspec.MsgspecError) as e:
            raise EvaluationError(f"{path}: line {number}: not an event of the controller") from e
        key = (alert.node, alert.boot, alert.sequence)
        if key in seen:
            recorded.repeated += 1
        elif alert.decided_utc_ms is None:
            recorded.undated += 1
        else:
            recorded.alerts.append(alert)
        seen.add(key)
    return recorded


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE + 1):
                number += 1
                if len(line) > _MAX_LINE:
                    raise EvaluationError(f"{path}: line {number}: longer than {_MAX_LINE} bytes")
                if line.strip():
                    yield number, line
    except OSError as e:
        raise EvaluationError(f"{path}: cannot be read: {e.strerror}") from e


def _walk(row: dict[str, str], where: str) -> Walk:
    if not row["subject"]:
        raise EvaluationError(f"{where}: no subject")
    start, end = _instant(row["from"], where), _instant(row["to"], where)
    if end < start:
        raise EvaluationError(f"{where}: ends before it begins")
    listed = row.get("listed", "").strip().lower()
    if listed not in _YES:
        raise EvaluationError(f"{where}: listed is '{listed}', must be yes or no")
    groups = {name: value.strip() for name, value in row.items() if name not in _OWN_COLUMNS}
    return Walk(row["subject"], start, end, row.get("node", ""), _YES[listed], groups)


def _instant(text: str, where: str) -> int:
    """Milliseconds since 1970."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as e:
        raise EvaluationError(f"{where}: '{text}' is no time such as 2026-05-01T14:03:20Z") from e
    if moment.tzinfo is None:
        raise EvaluationError(f"{where}: '{text}' has no time zone: add Z or +01:00")
    return round(moment.timestamp() * _MS)


def _refuse_overlaps(walks: Sequence[Walk], path: Path) -> None:
    """One alert must not count twice."""
    by_subject: defaultdict[tuple[str, str], list[Walk]] = defaultdict(list)
    for walk in walks:
        by_subject[walk.subject, walk.node].append(walk)
    for (subject, _), mine in by_subject.items():
        mine.sort(key=lambda walk: walk.start_ms)
        for before, after in itertools.pairwise(mine):
            if after.start_ms <= before.end_ms:
                raise EvaluationError(f"{path}: two walks of {subject} overlap in time")
