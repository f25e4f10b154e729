"""`picketctl deploy start|stop|status` and `push`: which list is used where, until when."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from appliance.controller.arguments import (
    Commands,
    pattern,
    reference,
    sentence,
    until_from_now,
    whole,
)
from appliance.controller.fleet import Fleet
from appliance.controller.output import Output, plain, table, when
from appliance.controller.plan import Plan, Progress, Wanted, covers, progress, read_plan
from appliance.controller.report import REPORT_SUFFIX, read_counts
from appliance.controller.store import Deployment, ListRow, NodeRow, Status, Store
from appliance.controller.workplace import now_ms, workplace
from appliance.errors import ControllerError, WrongFleetError
from appliance.watchlist.bundle import Header, check_signatures, parse_head
from appliance.watchlist.files import KEY_SUFFIX, BundleFile, read_key
from appliance.watchlist.stamp import LEASE_MAX_S

_LOOK_S = 0.25
_GRACE_S = 2.5
"""What was heard of a node is written about once a second: it may not be silent at all."""
_ON_ITS_WAY = {Progress.WAITING, Progress.DELIVERED}


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
    sub = commands.add(
        "push", push, "bring a newer version of a list to the nodes, and wait for their answers",
        "--list list.bundle --wait 30",
        more="Without --list: wait for the answers to what was pushed. Exit status 1 unless every"
        " node has accepted.",
    )  # fmt: skip
    sub.add_argument("--list", type=Path, metavar="LIST.bundle")
    sub.add_argument("--key", type=Path, metavar="FILE", help="default: LIST.key")
    sub.add_argument("--wait", type=whole(0, 3600), default=30, metavar="SECONDS")


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
    steps = {d.deployment: _steps(plan, d, at_ms) for d in chosen}
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


def keep_list(fleet: Fleet, store: Store, path: Path, key: Path | None) -> Header:
    """Check a list from a file and keep it in the store.

    Raises:
        WatchlistError: not a list, damaged, not signed by enough authorities, of another fleet,
            or the key is not its own.
        StoreError: another list is kept under this version.
    """
    counts = read_counts(path.with_suffix(REPORT_SUFFIX))
    with BundleFile(path) as bundle:
        header = bundle.header
        authorities = fleet.authorities.values()
        check_signatures(parse_head(bundle.head), authorities, fleet.settings.signatures)
        if header.fleet != fleet.settings.name:
            raise WrongFleetError(
                f"{path}: for fleet '{header.fleet}', this is '{fleet.settings.name}'"
            )
        content_key = read_key(key or path.with_suffix(KEY_SUFFIX), header)
        bundle.verify()
        row = ListRow(
            list_id=header.list_id,
            version=header.version,
            deployment=header.deployment,
            head=bundle.head,
            digests=bundle.digests,
            content_key=content_key,
            counts=counts,
            added_ms=now_ms(),
        )
        store.lists.add(row, (bundle.piece(index) for index in range(header.pieces)))
    return header


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
    changed = {"list_id": header.list_id, "list_version": header.version}
    until_ms = min(before.until_ms, header.expires_utc_ms)
    fields = {name: getattr(before, name) for name in before.__dataclass_fields__}
    store.deployments.start(
        Deployment(**(fields | changed | {"until_ms": until_ms})), now_ms=now_ms()
    )


def _answers(store: Store, running: list[str]) -> dict[str, tuple[NodeRow, Progress]]:
    """How far each node is that is meant by a running deployment."""
    plan, at_ms = read_plan(store), now_ms()
    deployments = [d for d in plan.running if d.deployment in running]
    return {
        node: (plan.nodes[node], step)
        for deployment in deployments
        for node, step in _steps(plan, deployment, at_ms).items()
    }


def _in_use(row: NodeRow) -> str:
    return f"{row.seen.list_id} {row.seen.list_version}" if row.seen.list_id else "-"


def _steps(plan: Plan, deployment: Deployment, at_ms: int) -> dict[str, Progress]:
    row = plan.lists.get((deployment.list_id, deployment.list_version))
    wanted = None if row is None else Wanted(deployment, row)
    return {
        node.node: progress(node, wanted, at_ms)
        for node in plan.nodes.values()
        if covers(deployment.nodes, node.node) and node.status is not Status.REVOKED
    }


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
