"""`picketctl alerts` and `record`: what nodes reported and what never came; the lawful record."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable

from appliance.controller.arguments import Commands, whole
from appliance.controller.events import Event, event, event_of
from appliance.controller.output import Output, Printer, plain, table, when
from appliance.controller.store import Alerts, Conflict, Gap, KeptAlert
from appliance.controller.workplace import now_ms, workplace
from appliance.wire import encode

Trouble = Gap | Conflict

_LOOK_S = 0.25
_LOOKS_PER_TROUBLE = 20
_OVERLAP_MS = 10_000
"""Rows may be committed in another order than they were received in."""
_MOST = 10_000


def add(commands: Commands) -> None:
    """Declare the commands."""
    sub = commands.add(
        "alerts", alerts, "show alerts, provable losses and conflicts", "--follow --json",
        more="JSON comes as lines, one object each.",
    )  # fmt: skip
    sub.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    sub.add_argument(
        "-n", type=whole(0, _MOST), default=20, metavar="N", help="the newest N (default 20)"
    )
    commands.add("record", record, "show the lawful record, oldest line first", "--json")


def alerts(arguments: argparse.Namespace) -> int:
    """Show alerts; with --follow, as they come."""
    printer = Printer(json=arguments.json)
    with workplace(arguments.fleet) as (_, store):
        began_ms = now_ms()
        newest = store.alerts.newest(arguments.n)
        for kept in newest:
            printer(_told(kept))
        told = _tell_trouble(store.alerts, printer, set())
        if arguments.follow:
            _follow(store.alerts, printer, told, {_key(k) for k in newest}, began_ms)
    return 0


def record(arguments: argparse.Namespace) -> int:
    """Show the record."""
    with workplace(arguments.fleet) as (_, store):
        lines = store.records.after(0)
    rows = (
        (line.number, when(line.at_ms), line.kind, _pairs(line.about.items())) for line in lines
    )
    Output(json=arguments.json).show(plain(lines), table(("", "when", "what", "about"), rows))
    return 0


def _follow(
    alerts: Alerts,
    printer: Printer,
    trouble: set[Trouble],
    seen: set[tuple[str, bytes, int]],
    began_ms: int,
) -> None:
    """Until Ctrl-C: what is new. A window that overlaps the last one misses nothing."""
    since_ms = began_ms - _OVERLAP_MS
    for kept in alerts.since(since_ms, most=_MOST):
        if kept.received_ms < began_ms:
            seen.add(_key(kept))
    looks = 0
    while True:
        window = alerts.since(since_ms, most=_MOST)
        new = [kept for kept in window if _key(kept) not in seen]
        for kept in new:
            printer(_told(kept))
        if window:
            # A full window says nothing of what comes behind it: the next begins where it ends.
            overlap_ms = _OVERLAP_MS if len(window) < _MOST else 0
            since_ms = max(since_ms, window[-1].received_ms - overlap_ms)
            seen = {_key(kept) for kept in window}
        looks += 1
        if new or looks % _LOOKS_PER_TROUBLE == 0:  # it reads every number there is
            trouble = _tell_trouble(alerts, printer, trouble)
        time.sleep(_LOOK_S)


def _tell_trouble(alerts: Alerts, printer: Printer, told: set[Trouble]) -> set[Trouble]:
    """Losses and conflicts that were not told yet; all that were told by now."""
    now: set[Trouble] = {*alerts.gaps(), *alerts.conflicts()}
    for trouble in sorted(now - told, key=lambda one: (one.node, one.boot)):
        kind = "gap" if isinstance(trouble, Gap) else "conflict"
        fields = {name: getattr(trouble, name) for name in trouble.__dataclass_fields__}
        printer(event(kind, **fields))
    return told | now


def _told(kept: KeptAlert) -> Event:
    arrival = kept.arrival
    if arrival.alert is None:
        return event(
            "unreadable",
            node=arrival.node,
            boot=arrival.boot,
            sequence=arrival.sequence,
            reason=arrival.fault,
            received_ms=kept.received_ms,
        )
    nbytes = len(encode(arrival.alert))
    return event_of("alert", arrival.alert, nbytes=nbytes, received_ms=kept.received_ms)


def _key(kept: KeptAlert) -> tuple[str, bytes, int]:
    return kept.arrival.node, kept.arrival.boot, kept.arrival.sequence


def _pairs(fields: Iterable[tuple[str, object]]) -> str:
    return " ".join(f"{name}={value}" for name, value in fields)
