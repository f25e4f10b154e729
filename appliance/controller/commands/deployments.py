"""`picketctl deploy start|stop|status`: which list is used where, until when."""

from __future__ import annotations

import argparse
from pathlib import Path

from appliance.controller.arguments import (
    Commands,
    pattern,
    reference,
    sentence,
    until_from_now,
    whole,
)
from appliance.controller.keeping import keep_list
from appliance.controller.output import Output, plain, table, when
from appliance.controller.plan import Plan, covers, read_plan, steps_of
from appliance.controller.store import Deployment
from appliance.controller.workplace import now_ms, workplace
from appliance.errors import ControllerError
from appliance.watchlist.stamp import LEASE_MAX_S


def add(commands: Commands) -> None:
    """Declare the commands."""
    group = commands.group("deploy", "begin, end and follow deployments")
    sub = group.add(
        "start", start, "let nodes use a list until a time",
        "--list list.bundle --nodes 'cam-01*' --until 18:00 --authority 'Supt. A. Jones'"
        " --purpose 'find wanted persons' --location 'High Street'",
        more="The list brings its deployment's name. Again with the same: changes nothing; with a"
        " newer list, other nodes or another end: changes the deployment that runs.",
    )  # fmt: skip
    sub.add_argument("--list", type=Path, required=True, metavar="LIST.bundle")
    sub.add_argument("--key", type=Path, metavar="FILE", help="default: LIST.key")
    sub.add_argument(
        "--nodes", type=pattern, nargs="+", required=True, metavar="NODE", help="such as 'cam-01*'"
    )
    sub.add_argument(
        "--until", type=until_from_now, required=True, metavar="TIME",
        help="18:00, +90m or 2026-12-24T18:00",
    )  # fmt: skip
    for name, what in (
        ("authority", "who authorised it"), ("purpose", "what for"), ("location", "where"),
    ):  # fmt: skip
        sub.add_argument(f"--{name}", type=sentence, required=True, help=f"{what}, for the record")
    sub.add_argument(
        "--lease", type=whole(10, LEASE_MAX_S), default=3600, metavar="SECONDS",
        help="how long nodes go on without the controller (default 3600)",
    )  # fmt: skip
    sub = group.add("stop", stop, "end deployments; destroys their lists' keys", "market-day")
    sub.add_argument("deployments", nargs="*", type=reference, help="default: all that run")
    sub = group.add("status", status, "show deployments and how far each node has come", "--json")
    sub.add_argument("deployments", nargs="*", type=reference, help="default: all that run")


def start(arguments: argparse.Namespace) -> int:
    """Begin or change a deployment."""
    at_ms, until_ms = now_ms(), round(arguments.until.timestamp() * 1000)
    with workplace(arguments.fleet) as (fleet, store):
        header = keep_list(fleet, store, arguments.list, arguments.key)
        if until_ms > header.expires_utc_ms:
            raise ControllerError(
                f"--until {when(until_ms)}: the list expires at {when(header.expires_utc_ms)}"
            )
        deployment = Deployment(
            deployment=header.deployment,
            list_id=header.list_id,
            list_version=header.version,
            nodes=tuple(arguments.nodes),
            until_ms=until_ms,
            authority=arguments.authority,
            purpose=arguments.purpose,
            location=arguments.location,
            lease_s=arguments.lease,
            started_ms=at_ms,
        )
        plan = read_plan(store)
        _refuse_overlap(plan, deployment)
        changed = store.deployments.start(deployment, now_ms=at_ms)
        meant = [row.node for row in plan.nodes.values() if covers(deployment.nodes, row.node)]
    text = (
        f"deployment {deployment.deployment}: {header.list_id} version {header.version} at"
        f" {len(meant)} {'node' if len(meant) == 1 else 'nodes'} until {when(until_ms)}"
    )
    Output(json=arguments.json).show(
        {"deployment": deployment, "changed": changed, "nodes": meant},
        text if changed else f"{text}; it runs like this already",
    )
    return 0


def stop(arguments: argparse.Namespace) -> int:
    """End deployments."""
    with workplace(arguments.fleet) as (_, store):
        running = [d.deployment for d in store.deployments.all() if d.stopped_ms is None]
        names = arguments.deployments or running
        done = {
            name: store.deployments.stop(name, ended_by="stop", now_ms=now_ms()) for name in names
        }
    text = "\n".join(
        f"deployment {name}: {'ended; its list is withdrawn' if ended else 'had ended'}"
        for name, ended in done.items()
    )
    Output(json=arguments.json).show({"ended": done}, text or "no deployment runs")
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Show deployments."""
    at_ms = now_ms()
    with workplace(arguments.fleet) as (_, store):
        every = store.deployments.all()
        plan = read_plan(store)
    names = arguments.deployments or [d.deployment for d in every if d.stopped_ms is None]
    chosen = [d for d in every if d.deployment in names]
    if unknown := sorted(set(names) - {d.deployment for d in chosen}):
        raise ControllerError(f"no deployment {unknown[0]}")
    steps = {d.deployment: steps_of(plan, d, at_ms) for d in chosen}
    document = [{"deployment": plain(d), "nodes": plain(steps[d.deployment])} for d in chosen]
    rows = [
        (
            d.deployment,
            f"{d.list_id} {d.list_version}",
            " ".join(d.nodes),
            when(d.until_ms) if d.stopped_ms is None else f"ended {when(d.stopped_ms)}",
            ", ".join(f"{n}: {step}" for n, step in steps[d.deployment].items()),
        )
        for d in chosen
    ]
    shown = table(("deployment", "list", "nodes", "until", "progress"), rows)
    Output(json=arguments.json).show(document, shown if rows else "no deployment runs")
    return 0


def _refuse_overlap(plan: Plan, deployment: Deployment) -> None:
    """A node uses one list at a time: two deployments cannot mean the same node.

    Raises:
        ControllerError: names a node and the other deployment.
    """
    for other in plan.running:
        if other.deployment == deployment.deployment:
            continue
        for node in plan.nodes:
            if covers(other.nodes, node) and covers(deployment.nodes, node):
                raise ControllerError(
                    f"node {node} is in deployment {other.deployment}: stop that one first"
                )
