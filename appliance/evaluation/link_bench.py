"""How much a controller takes: alerts acknowledged per second, and a list pushed to many nodes.

    python -m appliance.evaluation.link_bench --out bench-link.json

1. a fleet of its own in a temporary folder, with as many nodes as are asked for
2. `picketctl serve` as a process of its own, over mutual TLS on loopback, its store on SQLite
3. alerts: every node reports one alert at a time and waits for the answer; then full reports
4. push: every node waits in a poll; a list is deployed; each fetches all of it and says so

Nodes are played by threads of this process, so both ends share the machine's cores: the figures
are a floor for the controller. No row is sent twice: the controller opens, verifies and commits
every one of them, and that is part of what is measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from appliance.controller.fleet import Fleet, Settings
from appliance.controller.workplace import open_store
from appliance.evaluation.link_rig import Actor, Controller, deploy, serve
from appliance.link.listener import allow_files
from appliance.wire import ROWS_PER_REPORT

_THREADS = 256
"""Nodes that ask at the same time, at most."""
_PARKED_S = 1.0
"""Until every poll waits at the controller."""


@dataclass(frozen=True, slots=True)
class Alerts:
    """Alerts acknowledged, by so many nodes, each with one report under way at a time.

    Attributes:
        per_report: rows in a report.
        per_s: alerts per second, all nodes together.
        p50_ms, p99_ms: from a report until its acknowledgement.
        controller_mib: resident memory of the controller afterwards.
    """

    nodes: int
    per_report: int
    per_s: float
    p50_ms: float
    p99_ms: float
    controller_mib: float


@dataclass(frozen=True, slots=True)
class Push:
    """A list brought to every node that waited for it.

    Attributes:
        mib: of the list.
        first_s, last_s: from the order until the first, and the last, node had all of it.
    """

    nodes: int
    templates: int
    mib: float
    first_s: float
    last_s: float
    controller_mib: float


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that was measured."""

    alerts: tuple[Alerts, ...]
    push: Push | None


def measure_alerts(
    actors: Sequence[Actor], controller: Controller, *, total: int, per_report: int
) -> Alerts:
    """Let every node report until about `total` alerts are acknowledged."""
    rounds = max(1, total // (per_report * len(actors)))
    with ThreadPoolExecutor(min(_THREADS, len(actors))) as pool:
        waiting = [[a.rows(per_report) for _ in range(rounds)] for a in actors]
        began_s = time.perf_counter()
        took = pool.map(lambda actor, rows: [actor.report(r) for r in rows], actors, waiting)
        latencies_ms = np.concatenate([np.array(one) for one in took]) * 1e3
        wall_s = time.perf_counter() - began_s
    return Alerts(
        nodes=len(actors),
        per_report=per_report,
        per_s=len(actors) * rounds * per_report / wall_s,
        p50_ms=float(np.percentile(latencies_ms, 50)),
        p99_ms=float(np.percentile(latencies_ms, 99)),
        controller_mib=controller.mib,
    )


def bench(*, nodes: Sequence[int], push_nodes: int, templates: int, total: int) -> Result:
    """Measure.

    Args:
        nodes: for each of these numbers, alerts are measured once.
        push_nodes: that get the list; 0 leaves the push out.
        templates: in the list.
        total: alerts per measurement, about.
    """
    most = max(*nodes, push_nodes)
    allow_files(512 + 8 * most)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="picket-bench-")))
        fleet = Fleet.init(folder / "fleet", Settings(name="bench"), now=datetime.now(UTC))
        store = stack.enter_context(open_store(fleet))
        actors = [Actor(f"node-{n:04d}", fleet, store) for n in range(most)]
        controller = stack.enter_context(serve(fleet.folder))
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda actor: actor.dial(controller.url), actors))
        for actor in actors:
            stack.enter_context(actor)
        measured = tuple(
            measure_alerts(actors[:count], controller, total=total, per_report=per_report)
            for count in nodes
            for per_report in (1, ROWS_PER_REPORT)
        )
        if not push_nodes:
            return Result(measured, None)
        with ThreadPoolExecutor(push_nodes) as pool:
            done = [pool.submit(actor.take_list) for actor in actors[:push_nodes]]
            time.sleep(_PARKED_S)
            mib = deploy(fleet, store, templates)
            began_s = time.monotonic()
            ended_s = sorted(one.result() for one in done)
        push = Push(
            nodes=push_nodes,
            templates=templates,
            mib=mib,
            first_s=ended_s[0] - began_s,
            last_s=ended_s[-1] - began_s,
            controller_mib=controller.mib,
        )
        return Result(measured, push)


def show(result: Result, console: Console) -> None:
    """As tables."""
    table = Table(title="alerts acknowledged, loopback TLS, SQLite")
    for column in ("nodes", "alerts per report", "alerts/s", "p50 ms", "p99 ms", "controller MiB"):
        table.add_column(column, justify="right")
    for row in result.alerts:
        table.add_row(
            f"{row.nodes:,}",
            str(row.per_report),
            f"{row.per_s:,.0f}",
            f"{row.p50_ms:.1f}",
            f"{row.p99_ms:.1f}",
            f"{row.controller_mib:.0f}",
        )
    console.print(table)
    if result.push is not None:
        push = result.push
        console.print(
            f"a list of {push.templates:,} templates ({push.mib:.1f} MiB) to {push.nodes} nodes:"
            f" the first had it after {push.first_s:.2f} s, the last after {push.last_s:.2f} s;"
            f" controller {push.controller_mib:.0f} MiB"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="How much a controller takes.")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--push-nodes", type=int, default=100)
    parser.add_argument("--templates", type=int, default=10_000)
    parser.add_argument("--alerts", type=int, default=2_000, help="per measurement, about")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    arguments = parser.parse_args(argv)
    result = bench(
        nodes=arguments.nodes,
        push_nodes=arguments.push_nodes,
        templates=arguments.templates,
        total=arguments.alerts,
    )
    show(result, Console())
    if arguments.out:
        arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(result))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
