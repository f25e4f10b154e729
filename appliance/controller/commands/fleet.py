"""`picketctl init`, `node add`, `nodes`, `confirm`, `revoke`, `wipe`: who belongs to the fleet."""

from __future__ import annotations

import argparse
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from appliance.controller.arguments import Commands, hours, pattern, reference, whole
from appliance.controller.fleet import Fleet, Settings
from appliance.controller.joining import token_hash
from appliance.controller.output import Output, plain, table, when
from appliance.controller.plan import covers, progress, read_plan, state_shown
from appliance.controller.store import NodeRow, Status, Store, Wipe
from appliance.controller.workplace import now, now_ms, open_store, workplace
from appliance.errors import CardError, ControllerError
from appliance.link.file import replace
from appliance.wire import NAME_MAX_CHARS

_CONTROLLER, _JOIN = "tls+tcp://127.0.0.1:7441", "tls+tcp://127.0.0.1:7442"
_TOKEN_BYTES = 32


def add(commands: Commands) -> None:
    """Declare the commands."""
    sub = commands.add(
        "init", init, "make a fleet: its keys, certificates and store", "FLEET/ --name harbour",
        more="Safe to repeat; a fleet that is there is never changed.", fleet=False,
    )  # fmt: skip
    sub.add_argument("folder", type=Path, metavar="FLEET/", help="new or empty")
    sub.add_argument("--name", type=reference, help="of the fleet (default: that of the folder)")
    sub.add_argument(
        "--controller",
        action="append",
        metavar="URL",
        help=f"address that nodes dial; several for fail-over (default {_CONTROLLER})",
    )
    sub.add_argument("--join", default=_JOIN, metavar="URL", help=f"join port (default {_JOIN})")
    sub.add_argument(
        "--authority", action="append", type=reference, metavar="NAME",
        help="a list authority; several for --signatures 2 (default: authority)",
    )  # fmt: skip
    sub.add_argument(
        "--signatures", type=whole(1, 8), default=1, help="that a list must have (default 1)"
    )
    sub.add_argument(
        "--store", default="", metavar="URL",
        help="postgresql://USER@HOST/NAME (default: fleet.db in the folder)",
    )  # fmt: skip
    group = commands.group("node", "make nodes of the fleet")
    sub = group.add(
        "add", node_add, "write what a new node needs: node.toml and a one-time join.toml",
        "cam-017 --out cam-017/", more="Until the node has joined it may be repeated: the newest"
        " join.toml is the one that counts.",
    )  # fmt: skip
    sub.add_argument("node", type=reference, metavar="NAME")
    sub.add_argument("--out", type=Path, metavar="FOLDER/", help="default: ./NAME/")
    sub.add_argument(
        "--hours", type=hours, default=72.0, help="for which the token is good (default 72)"
    )
    sub.add_argument(
        "--again",
        action="store_true",
        help="the node has joined before: a new card, or its certificate ran out; what it had is"
        " revoked",
    )
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


def init(arguments: argparse.Namespace) -> int:
    """Make a fleet."""
    folder: Path = arguments.folder
    fallback = re.sub(r"[^A-Za-z0-9._:@-]", "-", folder.resolve().name)[:NAME_MAX_CHARS]
    settings = Settings(
        name=arguments.name or fallback or "fleet",
        signatures=arguments.signatures,
        store=arguments.store,
        controllers=tuple(arguments.controller or [_CONTROLLER]),
        join=arguments.join,
    )
    there = (folder / "fleet.toml").exists()
    names = tuple(arguments.authority or ("authority",))
    fleet = Fleet.init(folder, settings, authorities=names, now=now())
    with open_store(fleet):
        pass
    text = f"{folder}: fleet {fleet.settings.name} {'is there already' if there else 'made'}"
    if not there:
        keys = ", ".join(f"authorities/{name}.key" for name in names)
        text += f"\ntake {keys} away and keep offline: whoever has it can put a face on a list"
    Output(json=arguments.json).show({"fleet": fleet.settings, "made": not there}, text)
    return 0


def node_add(arguments: argparse.Namespace) -> int:
    """Invite a node."""
    node, folder = arguments.node, arguments.out or Path(arguments.node)
    token, at_ms = secrets.token_bytes(_TOKEN_BYTES), now_ms()
    expires_ms = at_ms + round(arguments.hours * 3_600_000)
    with workplace(arguments.fleet) as (fleet, store):
        config = fleet.node_toml(node).encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise CardError(f"{folder}: cannot be made: {e.strerror}") from e
        row = store.nodes.get(node)
        if arguments.again and row is not None and row.serials:
            fleet.revoke(row.serials, now())
        # The store first: a join.toml that nobody knows would be worse than none.
        store.nodes.invite(
            node,
            token_hash=token_hash(token),
            expires_ms=expires_ms,
            now_ms=at_ms,
            again=arguments.again,
        )
        if not (folder / "node.toml").exists():  # it may have been edited since
            replace(folder / "node.toml", config, mode=0o644)
        replace(folder / "join.toml", fleet.join_toml(token).encode())
    written = [str(folder / name) for name in ("node.toml", "join.toml")]
    Output(json=arguments.json).show(
        {"node": node, "files": written, "token_expires_ms": expires_ms},
        f"{node}: wrote {' and '.join(written)}; the token is good until {when(expires_ms)}\n"
        f"on the node: picket join --config {written[0]}",
    )
    return 0


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
        store.deployments.order_wipe([row.node], now_ms=now_ms())
        store.nodes.set_status(row.node, Status.QUARANTINED, "wipe ordered", now_ms=now_ms())
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
