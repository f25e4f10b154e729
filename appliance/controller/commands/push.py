"""`picketctl push`: a newer version to the nodes of a deployment, and each node's answer."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from appliance.controller.arguments import Commands, whole
from appliance.controller.fleet import Fleet
from appliance.controller.keeping import keep_list
from appliance.controller.output import Output, table
from appliance.controller.plan import Progress, read_plan, steps_of
from appliance.controller.store import NodeRow, Store
from appliance.controller.workplace import now_ms, workplace
from appliance.errors import ControllerError
from appliance.watchlist.files import BundleFile

_LOOK_S = 0.25
_GRACE_S = 2.5
"""What was heard of a node is written about once a second: it may not be silent at all."""
_ON_ITS_WAY = {Progress.WAITING, Progress.DELIVERED}


def add(commands: Commands) -> None:
    """Declare the command."""
    sub = commands.add(
        "push", push, "bring a newer version of a list to the nodes, and wait for their answers",
        "--list list.bundle --wait 30",
        more="Without --list: wait for the answers to what was pushed. Exit status 1 unless every"
        " node has accepted.",
    )  # fmt: skip
    sub.add_argument("--list", type=Path, metavar="LIST.bundle")
    sub.add_argument("--key", type=Path, metavar="FILE", help="default: LIST.key")
    sub.add_argument("--wait", type=whole(0, 3600), default=30, metavar="SECONDS")


def push(arguments: argparse.Namespace) -> int:
    """Bring a version to the nodes and wait for their answers."""
    with workplace(arguments.fleet) as (fleet, store):
        if arguments.list:
            _supersede(fleet, store, arguments.list, arguments.key)
        running = [d.deployment for d in store.deployments.all() if d.stopped_ms is None]
        if not running:
            raise ControllerError("no deployment runs: `picketctl deploy start` begins one")
        began_s = time.monotonic()
        while True:
            answers, waited_s = _answers(store, running), time.monotonic() - began_s
            open_ones = _ON_ITS_WAY | ({Progress.SILENT} if waited_s < _GRACE_S else set())
            left = [step for _, step in answers.values() if step in open_ones]
            if not left or waited_s >= arguments.wait:
                break
            time.sleep(_LOOK_S)
    rows = [
        (
            row.node,
            step,
            _in_use(row),
            row.seen.refused or row.reason,
        )
        for row, step in answers.values()
    ]
    document = [
        {"node": r.node, "answer": s, "list_version": r.seen.list_version, "why": r.seen.refused}
        for r, s in answers.values()
    ]
    shown = table(("node", "answer", "in use", "why"), rows)
    Output(json=arguments.json).show(document, shown if rows else "no node is meant")
    return 0 if all(step is Progress.ACCEPTED for _, step in answers.values()) else 1


def _supersede(fleet: Fleet, store: Store, path: Path, key: Path | None) -> None:
    """A newer version of the list that a deployment uses; everything else stays."""
    with BundleFile(path) as bundle:
        named = bundle.header.deployment
    running = [d for d in store.deployments.all() if d.stopped_ms is None]
    before = next((d for d in running if d.deployment == named), None)
    if before is None:
        raise ControllerError(f"{path}: deployment {named} does not run")
    header = keep_list(fleet, store, path, key)
    if header.list_id == before.list_id and header.version < before.list_version:
        raise ControllerError(f"{path}: version {before.list_version} is newer, and in use")
    after = replace(
        before,
        list_id=header.list_id,
        list_version=header.version,
        until_ms=min(before.until_ms, header.expires_utc_ms),
    )
    store.deployments.start(after, now_ms=now_ms())


def _answers(store: Store, running: list[str]) -> dict[str, tuple[NodeRow, Progress]]:
    """How far each node is that is meant by a running deployment."""
    plan, at_ms = read_plan(store), now_ms()
    deployments = [d for d in plan.running if d.deployment in running]
    return {
        node: (plan.nodes[node], step)
        for deployment in deployments
        for node, step in steps_of(plan, deployment, at_ms).items()
    }


def _in_use(row: NodeRow) -> str:
    return f"{row.seen.list_id} {row.seen.list_version}" if row.seen.list_id else "-"
