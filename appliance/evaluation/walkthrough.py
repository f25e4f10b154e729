"""`picket walkthrough`: a field test with consenting actors, judged by the controller's record.

Enters: actors.csv, a row per walk past the node, and the controller's alerts as JSON Lines. Leaves:
how many walks raised the right alert, by group, with intervals; and the alerts that no walk
explains. The actors are on a temporary list; controls, who are not on it, walk by as well.

actors.csv has the columns `subject` (the list's reference; for a control any name), `from` and `to`
(ISO 8601 with a time zone: when the person was in view), and may have `node` (only alerts of that
node count), `listed` (yes or no, default yes) and any others, which are groups.

An alert explains a walk if it names the walk's subject and was decided between `from` and `to`,
give or take the slack. Every other alert in the time of the test is a false one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from appliance.evaluation.groups import Group, break_down
from appliance.evaluation.identification import Bootstrap, Rate, Trials
from appliance.evaluation.page import by_group, frame, percent, table, write_both
from appliance.evaluation.walks import Alert, Recorded, Walk, read_alerts, read_walks

_MS = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """What a field test showed.

    Attributes:
        found: walks of listed actors that raised their alert.
        false_alerts: alerts during the test that no walk explains.
        control_alarms: walks of controls during which a false alert came.
        missed: the walks that raised none, for a person to look into.
    """

    found: Rate
    groups: tuple[Group, ...]
    false_alerts: int
    controls: int
    control_alarms: int
    undated: int
    repeated: int
    missed: tuple[str, ...]


def walkthrough(*, actors: Path, alerts: Path, out: Path | None, slack_s: float, seed: int) -> str:
    """Judge a field test.

    Args:
        actors: CSV, see the module.
        alerts: JSON Lines, see the module.
        out: folder of a report; None writes none.
        slack_s: by how much the clocks of node and notebook may differ, 0 or more.
        seed: of the intervals.

    Returns:
        The result in words.

    Raises:
        EvaluationError: a file is not what it should be; names the row.
    """
    result = judge(read_walks(actors), read_alerts(alerts), slack_s=slack_s, seed=seed)
    if out is not None:
        write_both(out, _page(result, actors.name), result)
    return _words(result)


def judge(walks: Sequence[Walk], recorded: Recorded, *, slack_s: float, seed: int) -> Result:
    """Match alerts with walks.

    Args:
        walks: at least one of a listed actor.
        recorded: alerts.
        slack_s: see walkthrough.
        seed: of the intervals.
    """
    slack = round(slack_s * _MS)
    explained: set[int] = set()
    hits: dict[int, bool] = {}
    for index, walk in enumerate(walks):
        matching = {
            number
            for number, alert in enumerate(recorded.alerts)
            if walk.listed and alert.subject == walk.subject and _during(alert, walk, slack)
        }
        hits[index] = bool(matching)
        explained |= matching
    begin, end = min(w.start_ms for w in walks) - slack, max(w.end_ms for w in walks) + slack
    unexplained = [
        alert
        for number, alert in enumerate(recorded.alerts)
        if number not in explained and begin <= (alert.decided_utc_ms or 0) <= end
    ]
    controls = [walk for walk in walks if not walk.listed]
    found, groups = _rates(walks, hits, seed)
    return Result(
        found=found,
        groups=groups,
        false_alerts=len(unexplained),
        controls=len(controls),
        control_alarms=sum(any(_during(a, w, slack) for a in unexplained) for w in controls),
        undated=recorded.undated,
        repeated=recorded.repeated,
        missed=tuple(
            f"{walk.subject} from {datetime.fromtimestamp(walk.start_ms / _MS, UTC).isoformat()}"
            for index, walk in enumerate(walks)
            if walk.listed and not hits[index]
        ),
    )


def _during(alert: Alert, walk: Walk, slack_ms: int) -> bool:
    at = alert.decided_utc_ms
    return (
        at is not None
        and walk.start_ms - slack_ms <= at <= walk.end_ms + slack_ms
        and walk.node in ("", alert.node)
    )


def _rates(
    walks: Sequence[Walk], hits: dict[int, bool], seed: int
) -> tuple[Rate, tuple[Group, ...]]:
    """Over all walks of listed actors, and by every group; drawn by actor, not by walk."""
    listed = [index for index, walk in enumerate(walks) if walk.listed]
    numbers = {name: n for n, name in enumerate(sorted({walks[i].subject for i in listed}))}
    trials = Trials(
        mated=np.array([float(hits[i]) for i in listed]),
        mated_subject=np.array([numbers[walks[i].subject] for i in listed], np.intp),
        nonmated=np.zeros(0),
        nonmated_subject=np.zeros(0, np.intp),
    )
    bootstrap = Bootstrap(trials, seed=seed)
    columns = sorted({name for i in listed for name in walks[i].groups})
    groups: list[Group] = []
    for column in columns:
        groups += break_down(
            column,
            np.array([walks[i].groups.get(column, "") for i in listed]),
            np.zeros(0, np.str_),
            trials,
            threshold=0.5,
            bootstrap=bootstrap,
        )
    return bootstrap.at_threshold(0.5).tpir, tuple(groups)


def _words(result: Result) -> str:
    lines = [
        (
            f"{result.found.trials} walks of {result.found.subjects} listed actors:"
            f" found {percent(result.found)}"
        ),
        (
            f"{result.controls} walks of controls, {result.control_alarms} with a false alert;"
            f" {result.false_alerts} false alerts in all"
        ),
    ]
    for group in result.groups:
        rate = group.tpir
        if rate is not None:
            lines.append(
                f"  {group.column} {group.value}: {percent(rate)} of {rate.trials} walks,"
                f" {rate.subjects} actors" + (f"; {group.warning}" if group.warning else "")
            )
    if result.undated:
        lines.append(f"{result.undated} alerts without a time (the node's clock was not set)")
    lines += [f"missed: {walk}" for walk in result.missed]
    return "\n".join(lines)


def _page(result: Result, source: str) -> str:
    """For people."""
    rows = [
        ["walks of listed actors", f"{result.found.trials} ({result.found.subjects} actors)"],
        ["found", percent(result.found)],
        ["walks of controls", f"{result.controls}"],
        ["of them with a false alert", f"{result.control_alarms}"],
        ["false alerts in all", f"{result.false_alerts}"],
        ["alerts without a time", f"{result.undated}"],
        ["alerts that came twice", f"{result.repeated}"],
    ]
    missed = [[walk] for walk in result.missed] or [["none"]]
    return frame(
        f"Field test: {source}",
        "Intervals: 95 %, drawn over actors, not walks: ten walks of one actor say little more"
        " than one. An alert belongs to a walk if it names the walk's subject while it lasted.",
        [
            table("All", ["", ""], rows),
            by_group(result.groups, "Over all walks of listed actors"),
            table("Missed", ["walk"], missed),
        ],
    )
