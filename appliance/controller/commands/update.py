"""`picketctl update start|status|next|pause|resume|stop`: a signed update over the fleet."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path

from appliance.controller.arguments import Commands, sentence, whole
from appliance.controller.bundles import FOLDER, keep, look
from appliance.controller.output import Output
from appliance.controller.plan import Plan, read_plan
from appliance.controller.rollout import WHOLE, Rollout, Runs, State, next_stage, stage_of
from appliance.controller.rollout_report import Tally, as_document, as_text, count, percent
from appliance.controller.store import Status, Store
from appliance.controller.workplace import now_ms, workplace
from appliance.errors import ControllerError
from appliance.system.release import shown
from appliance.wire import Version

_STAGES_MAX = 20
_DEFAULT = (100, 1_000, 5_000, WHOLE)


def add(commands: Commands) -> None:
    """Declare the commands."""
    group = commands.group("update", "roll a signed update out over the fleet, in stages")
    sub = group.add(
        "start", start, "begin to roll an update out: to the first stage",
        "picket-0.2.0-arm64.raucb --stages 1,10,50,100",
        more="Nodes fetch it, RAUC checks its signature there and installs it in the other slot;"
        " it is kept if the services come up. Nodes with a deployment are passed over until that"
        " ends.",
    )  # fmt: skip
    sub.add_argument("bundle", type=Path, metavar="BUNDLE", help="as `make image` leaves it")
    sub.add_argument(
        "--stages", type=_stages, default=_DEFAULT, metavar="PERCENT,…",
        help="shares of the fleet, rising (default 1,10,50,100)",
    )  # fmt: skip
    sub.add_argument(
        "--stop-after", type=whole(0, 100_000), default=0, metavar="N",
        help="pause by itself when more than N nodes rolled back or refused (default 0)",
    )  # fmt: skip
    sub.add_argument(
        "--while-watching", action="store_true", help="also nodes that have a deployment now"
    )
    sub.add_argument(
        "--certificate", type=Path, metavar="FILE",
        help="check here that this one signed it; nodes check their own in any case",
    )  # fmt: skip
    group.add("status", status, "show how far each stage has come", "--json")
    sub = group.add("next", go_on, "go on to the next stage", "")
    sub.add_argument(
        "--anyway", action="store_true", help="although nodes of this stage are not done"
    )
    sub = group.add("pause", pause, "offer the update to nobody for now", "--why 'market day'")
    sub.add_argument("--why", type=sentence, default="an operator said so", help="for the record")
    group.add("resume", resume, "go on in spite of the nodes that have failed so far", "")
    sub = group.add("stop", stop, "end the roll-out for good; who has the update keeps it", "")
    sub.add_argument("--why", type=sentence, default="an operator said so", help="for the record")


def start(arguments: argparse.Namespace) -> int:
    """Begin a roll-out."""
    found, at_ms = look(arguments.bundle, arguments.certificate), now_ms()
    with workplace(arguments.fleet) as (fleet, store):
        plan = read_plan(store)
        nodes = _nodes(plan)
        _refuse_older(found.version, store, nodes)
        superseded = _make_way(store, plan.rollout, found.version)
        sha256, size = keep(arguments.bundle, fleet.folder / FOLDER)
        draft = Rollout(
            rollout=f"{shown(found.version)}-{secrets.token_hex(4)}",
            version=found.version,
            sha256=sha256,
            size=size,
            stages=arguments.stages,
            stage=0,
            stop_after=arguments.stop_after,
            while_watching=arguments.while_watching,
            started_ms=at_ms,
        )
        # A stage into which no node falls is none: a fleet of ten has no first per cent.
        rollout = replace(draft, stage=next_stage(draft, nodes, after=-1))
        if superseded is not None:
            why = f"{shown(found.version)} follows"
            store.rollouts.stop(superseded.rollout, why, now_ms=at_ms)
        store.rollouts.start(rollout)
        _clear(fleet.folder / FOLDER, sha256)
    first = sum(stage_of(rollout, node) == rollout.stage for node in nodes)
    checked = "" if found.signed else "; its signature is checked by the nodes"
    text = (
        f"{shown(rollout.version)} is offered to {_many(first)} of {len(nodes)}"
        f" ({percent(rollout.stages[rollout.stage])}){checked}"
    )
    document = {
        "rollout": rollout.rollout,
        "version": shown(rollout.version),
        "sha256": sha256.hex(),
        "stage": rollout.stage + 1,
        "nodes": first,
        "signature_checked": found.signed,
    }
    Output(json=arguments.json).show(document, text)
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Show the roll-out, or the last one."""
    with workplace(arguments.fleet) as (fleet, store):
        every = store.rollouts.all()
        if not every:
            Output(json=arguments.json).show(None, "no update was ever rolled out")
            return 0
        tally = _tally(store, store.rollouts.current() or every[-1])
    text = as_text(tally, fleet.settings.name)
    Output(json=arguments.json).show(as_document(tally), text)
    return 0


def go_on(arguments: argparse.Namespace) -> int:
    """Go on to the next stage."""
    with workplace(arguments.fleet) as (_, store):
        rollout = _current(store)
        if rollout.state is State.PAUSED:
            raise ControllerError(f"paused, because {rollout.why}: `picketctl update resume` first")
        if rollout.last:
            raise ControllerError("this is the last stage")
        tally = _tally(store, rollout)
        unfinished = tally.unfinished
        if unfinished and not arguments.anyway:
            first = unfinished[0]
            raise ControllerError(
                f"{_many(len(unfinished))} of this stage not done, such as {first}"
                f" ({tally.nodes[first]}): --anyway goes on"
            )
        nodes = _nodes(read_plan(store))
        stage = next_stage(rollout, nodes, after=rollout.stage)
        store.rollouts.go_on(rollout.rollout, stage, now_ms=now_ms())
    more = sum(rollout.stage < (stage_of(rollout, node) or 0) <= stage for node in nodes)
    share = percent(rollout.stages[stage])
    Output(json=arguments.json).show(
        {"rollout": rollout.rollout, "stage": stage + 1, "nodes": more},
        f"{shown(rollout.version)} is offered to {_many(more)} more ({share})",
    )
    return 0


def pause(arguments: argparse.Namespace) -> int:
    """Pause the roll-out."""
    return _order(
        arguments,
        lambda store, one: store.rollouts.pause(one.rollout, arguments.why, now_ms=now_ms()),
        "is paused; what nodes have fetched whole they may still install",
        "was paused already",
    )


def resume(arguments: argparse.Namespace) -> int:
    """Go on after a pause."""
    return _order(
        arguments,
        lambda store, one: store.rollouts.resume(one.rollout, now_ms=now_ms()),
        "goes on",
        "was not paused",
    )


def stop(arguments: argparse.Namespace) -> int:
    """End the roll-out."""
    return _order(
        arguments,
        lambda store, one: store.rollouts.stop(one.rollout, arguments.why, now_ms=now_ms()),
        "is stopped",
        "was stopped already",
    )


def _order(
    arguments: argparse.Namespace,
    order: Callable[[Store, Rollout], bool],
    done: str,
    already: str,
) -> int:
    with workplace(arguments.fleet) as (_, store):
        rollout = _current(store)
        changed = order(store, rollout)
    text = f"the roll-out of {shown(rollout.version)} {done if changed else already}"
    Output(json=arguments.json).show({"rollout": rollout.rollout, "changed": changed}, text)
    return 0


def _current(store: Store) -> Rollout:
    rollout = store.rollouts.current()
    if rollout is None:
        raise ControllerError("no update is being rolled out: `picketctl update start` begins one")
    return rollout


def _tally(store: Store, rollout: Rollout) -> Tally:
    taken, runs = store.rollouts.taken(rollout.rollout), store.rollouts.runs()
    return count(rollout, read_plan(store), taken, runs, now_ms())


def _nodes(plan: Plan) -> list[str]:
    """Who is counted: nodes that have joined."""
    counted = {Status.JOINED, Status.QUARANTINED}
    return [row.node for row in plan.nodes.values() if row.status in counted]


def _refuse_older(version: Version, store: Store, nodes: list[str]) -> None:
    """A hole once closed stays closed: what some node has accepted is the least there may be."""
    runs: dict[str, Runs] = {n: one for n, one in store.rollouts.runs().items() if n in nodes}
    newest = max(runs.values(), key=lambda one: one.version, default=None)
    if newest is not None and version < newest.version:
        raise ControllerError(
            f"version {shown(version)} is older than {shown(newest.version)}, which"
            f" {newest.node} runs"
        )


def _make_way(store: Store, current: Rollout | None, version: Version) -> Rollout | None:
    """The roll-out that this one takes over from: one that is past its last stage's beginning."""
    if current is None:
        return None
    if not current.last or current.state is State.PAUSED or not current.version < version:
        raise ControllerError(
            f"{shown(current.version)} is being rolled out: `picketctl update stop` ends that"
        )
    if _tally(store, current).unfinished:
        raise ControllerError(
            f"{shown(current.version)} is not everywhere yet: `picketctl update stop` ends that"
        )
    return current


def _clear(folder: Path, sha256: bytes) -> None:
    """Bundles of earlier roll-outs are not given out any more."""
    for path in folder.glob("*.raucb"):
        if path.name != f"{sha256.hex()}.raucb":
            path.unlink(missing_ok=True)


def _many(number: int) -> str:
    return f"{number} node" if number == 1 else f"{number} nodes"


def _stages(text: str) -> tuple[int, ...]:
    """Shares of the fleet in hundredths of a per cent, rising."""
    try:
        shares = [Decimal(part) * 100 for part in text.split(",")]
        stages = tuple(int(share) for share in shares if share == int(share))
    except (InvalidOperation, ValueError, OverflowError):
        shares, stages = [], ()
    rising = all(a < b for a, b in zip((0, *stages), stages, strict=False))
    good = 0 < len(stages) <= _STAGES_MAX and len(stages) == len(shares) and rising
    if not good or stages[-1] > WHOLE:
        raise argparse.ArgumentTypeError(
            f"'{text[:40]}': 1 to {_STAGES_MAX} rising percentages up to 100, such as 1,10,50,100"
        )
    return stages
