"""`picketctl nodes`, `confirm`, `revoke`, `wipe`: how nodes are, and what they may still do."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from appliance.controller.arguments import Commands, pattern
from appliance.controller.output import Output, plain, table, when
from appliance.controller.plan import covers, progress, read_plan, state_shown
from appliance.controller.store import NodeRow, Status, Store, Wipe
from appliance.controller.workplace import now, now_ms, workplace
from appliance.errors import ControllerError


def add(commands: Commands) -> None:
    """Declare the commands."""
    sub = commands.add("nodes", nodes, "show every node and how far it has come", "--json")
    sub.add_argument("patterns", nargs="*", type=pattern, metavar="NODE", help="only these")
    for name, command, what, example in (
        ("confirm", confirm, "trust quarantined nodes again", "cam-017"),
        ("revoke", revoke, "never talk to nodes again: stolen, sold, scrapped", "cam-017"),
        ("wipe", wipe, "order nodes to overwrite their lists; quarantines them", "'cam-01*'"),
    ):
        sub = commands.add(name, command, what, example)
        sub.add_argument("patterns", nargs="+", type=pattern, metavar="NODE")
        if name == "revoke":
            sub.add_argument("--reason", default="by order", help="for the record")


def nodes(arguments: argparse.Namespace) -> int:
    """Show nodes."""
    at_ms = now_ms()
    with workplace(arguments.fleet) as (_, store):
        plan = read_plan(store)
        wipes = {order.node: order for order in store.deployments.wipes()}
    rows = [r for r in plan.nodes.values() if covers(arguments.patterns or ["*"], r.node)]
    steps = {r.node: progress(r, plan.wanted(r.node, at_ms), at_ms) for r in rows}
    document = [
        {
            "node": row.node,
            "status": row.status,
            "reason": row.reason,
            "progress": steps[row.node],
            "certificates": len(row.serials),
            "wipe": plain(wipes.get(row.node)),
            "seen": plain(row.seen),
        }
        for row in rows
    ]
    columns = ("node", "progress", "state", "list", "lease", "outbox", "heard", "")
    shown = table(
        columns, (_line(row, str(steps[row.node]), wipes.get(row.node), at_ms) for row in rows)
    )
    Output(json=arguments.json).show(document, shown if rows else "no nodes")
    return 0


def confirm(arguments: argparse.Namespace) -> int:
    """End quarantine."""

    def one(store: Store, row: NodeRow) -> str:
        if row.status is Status.JOINED:
            return "is not in quarantine"
        if row.status is Status.INVITED:
            return "has not joined yet"
        store.nodes.set_status(row.node, Status.JOINED, "", now_ms=now_ms())
        return "is trusted again"

    with workplace(arguments.fleet) as (_, store):
        return _each(arguments, store, one)


def revoke(arguments: argparse.Namespace) -> int:
    """Revoke nodes: in the store, and their certificates in the revocation list."""
    with workplace(arguments.fleet) as (fleet, store):

        def one(store: Store, row: NodeRow) -> str:
            # This order: a controller that notices the revocation finds the list that has it.
            fleet.revoke(row.serials, now())
            store.nodes.set_status(row.node, Status.REVOKED, arguments.reason, now_ms=now_ms())
            return "is revoked"

        return _each(arguments, store, one)


def wipe(arguments: argparse.Namespace) -> int:
    """Order nodes to wipe; no list is granted to them until they are confirmed."""

    def one(store: Store, row: NodeRow) -> str:
        if row.status in {Status.INVITED, Status.REVOKED}:
            return f"is {row.status}: nothing to wipe"
        # This order: between the two a node that has wiped must not be given a list again.
        store.nodes.set_status(row.node, Status.QUARANTINED, "wipe ordered", now_ms=now_ms())
        store.deployments.order_wipe([row.node], now_ms=now_ms())
        return "will wipe when it asks next; `picketctl confirm` gives it lists again"

    with workplace(arguments.fleet) as (_, store):
        return _each(arguments, store, one)


def _each(arguments: argparse.Namespace, store: Store, one: Callable[[Store, NodeRow], str]) -> int:
    """Do it for each node that a pattern names, each pattern naming at least one."""
    rows = store.nodes.all()
    for name in arguments.patterns:
        if not any(covers([name], row.node) for row in rows):
            raise ControllerError(f"no node {name}")
    done = {r.node: one(store, r) for r in rows if covers(arguments.patterns, r.node)}
    text = "\n".join(f"{node} {what}" for node, what in done.items())
    Output(json=arguments.json).show(done, text)
    return 0


def _line(row: NodeRow, step: str, wipe: Wipe | None, at_ms: int) -> tuple[object, ...]:
    seen = row.seen
    why = row.reason or seen.refused
    ago = f"{max(0, at_ms - seen.at_ms) // 1000} s ago" if seen.at_ms else "never"
    return (
        row.node,
        step,
        state_shown(seen) or "-",
        f"{seen.list_id} {seen.list_version}" if seen.list_id else "-",
        f"{seen.lease_left_s} s" if seen.list_id else "-",
        "-" if seen.health is None else seen.health.outbox,
        ago,
        why if wipe is None or wipe.done_ms is None else f"{why}; wiped {when(wipe.done_ms)}",
    )
