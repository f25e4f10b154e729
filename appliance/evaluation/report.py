"""An evaluation as a page for people and a file for machines, side by side in one folder.

Enters: an Evaluation and what it was made with. Leaves: report.html, which needs nothing else to be
read, and report.json. No face is copied: the pictures to look at are linked where they lie.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from appliance.evaluation.assess import Evaluation
from appliance.evaluation.findings import Pair
from appliance.evaluation.identification import Operating
from appliance.evaluation.page import by_group, frame, percent, table, write_both
from appliance.evaluation.svg import Axis, Chart

_SHOWN_FUSED = 0.005
"""FPIR from which the curve per person is drawn: there are fewer people than pictures."""


@dataclass(frozen=True, slots=True)
class Made:
    """With what and when the figures were made.

    Attributes:
        data: the folder.
        protocol: one line.
        pipeline: models and options, one line.
        seed: of all draws.
        findings: oddities of the folder.
        thresholds: in words, for each threshold that was given rather than chosen.
    """

    data: str
    protocol: str
    pipeline: str
    seed: int
    findings: tuple[str, ...]
    thresholds: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a report tells.

    Attributes:
        mated, nonmated: scores of the probes that gave one, for the histogram.
    """

    made: Made
    evaluation: Evaluation
    mated: np.ndarray
    nonmated: np.ndarray


def write(outcome: Outcome, folder: Path, *, pictures: bool) -> Path:
    """Write both files; each is whole or not there.

    Args:
        outcome: what to tell.
        folder: made if missing.
        pictures: show the pictures to look at, from where they lie, beside their names.

    Returns:
        The page's path.

    Raises:
        EvaluationError: the folder cannot be written to.
    """
    record = {"made": outcome.made, "evaluation": outcome.evaluation}
    return write_both(folder, page(outcome, folder, pictures=pictures), record)


def page(outcome: Outcome, folder: Path, *, pictures: bool) -> str:
    """The whole page; links are relative to `folder`."""
    made, evaluation = outcome.made, outcome.evaluation
    opening = (
        f"{made.data}, {made.protocol}. {made.pipeline}. List: {evaluation.templates} templates of"
        f" {evaluation.subjects} people. Intervals: 95 %, {_BOOTSTRAP} (seed {made.seed})."
    )
    parts = [
        _headline(outcome),
        _curve(evaluation),
        _histogram(outcome),
        _persons(evaluation),
        _verification(evaluation),
        by_group(evaluation.groups, "At the threshold for FPIR 1 % of everybody"),
        _promises(evaluation),
        _acquired(evaluation),
        _findings(made, evaluation),
        _pairs("Strangers who score highest", evaluation.strangers, folder, pictures=pictures),
        _pairs("Listed people who score lowest", evaluation.misses, folder, pictures=pictures),
        _LIMITS,
    ]
    return frame(f"How well it recognises: {made.data}", opening, parts)


_BOOTSTRAP = "bootstrap of 1,000 resamples over people, not pictures; the list stays"
_LIMITS = """<h2>What this does not say</h2><ul>
<li>These are the people and pictures of this data set. A street has smaller, darker, moving faces;
measure there (<code>picket walkthrough</code>).</li>
<li>A rate lower than 3 divided by the number of strangers is not shown by this test.</li>
<li>Groups are compared at one threshold. A clear difference is one whose interval leaves zero out;
the absence of one is not the proof of equality.</li></ul>"""


def in_words(evaluation: Evaluation) -> str:
    """The headline for a terminal."""
    lines = [
        f"{_asked(point) if point.asked_fpir is not None else 'given threshold':<28}"
        f" threshold {point.threshold:.3f}  TPIR {percent(point.tpir)}  FPIR {percent(point.fpir)}"
        for point in evaluation.points
    ]
    lines += [
        f"{fused.pictures} fused, {_asked(point):<19}"
        f" threshold {point.threshold:.3f}  TPIR {percent(point.tpir)}  per person"
        for fused in evaluation.persons
        for point in fused.points
    ]
    lines.append(f"rank 1, no threshold: {percent(evaluation.rank_one)}")
    failed = {role: a.failed for role, a in evaluation.acquired.items() if a.failed}
    lines.append(
        "pictures that gave no probe: "
        + (", ".join(f"{n} {role}" for role, n in failed.items()) or "none")
    )
    return "\n".join(lines)


def _headline(outcome: Outcome) -> str:
    evaluation = outcome.evaluation
    given = iter(outcome.made.thresholds)
    rows = [
        [
            _asked(point) if point.asked_fpir is not None else next(given, "given threshold"),
            *_figures(point),
        ]
        for point in evaluation.points
    ]
    rows.append(["nearest is right, no threshold (rank 1)", "-", percent(evaluation.rank_one), "-"])
    return table(
        "Per picture: of the people on the list, how many are identified (TPIR = 1 - FNIR); of the"
        " strangers, how many raise an alert (FPIR)",
        ["at", "threshold", "TPIR", "FPIR"],
        rows,
    )


def _asked(point: Operating) -> str:
    name = f"FPIR {point.asked_fpir:.2%}".replace("%", " %")
    return name if point.shown else f"{name} (only {point.fpir.subjects} strangers)"


def _figures(point: Operating) -> list[str]:
    return [f"{point.threshold:.3f}", percent(point.tpir), percent(point.fpir)]


def _curve(evaluation: Evaluation) -> str:
    curve = evaluation.curve
    misses = [1 - y for person in evaluation.persons[-1:] for y in person.curve]
    least = max(2e-3, min([1 - high for high in curve.high] + misses) * 0.8)
    most = max(1 - low for low in curve.low) * 1.15
    chart = Chart(
        "Detection error trade-off: misses over false alerts",
        Axis("FPIR: strangers who raise an alert", curve.fpir[0], curve.fpir[-1], True, True),
        Axis("FNIR: people on the list who are missed", least, max(most, least * 2), True, True),
        legend_top=True,
    )
    chart.band(
        [(x, 1 - y) for x, y in zip(curve.fpir, curve.high, strict=True)],
        [1 - y for y in curve.low],
        "95 % interval",
    )
    chart.line([(x, 1 - y) for x, y in zip(curve.fpir, curve.tpir, strict=True)], "one picture")
    for fused in evaluation.persons[-1:]:
        points = [
            (x, 1 - y) for x, y in zip(curve.fpir, fused.curve, strict=True) if x >= _SHOWN_FUSED
        ]
        chart.line(points, f"{fused.pictures} pictures of a person fused")
    return f"<h2>Misses against false alerts</h2>{chart.svg()}"


def _histogram(outcome: Outcome) -> str:
    edges = np.linspace(-0.2, 1.0, 61)
    heights = [
        np.histogram(scores, edges)[0] / max(1, len(scores))
        for scores in (outcome.mated, outcome.nonmated)
    ]
    top = float(max(h.max() for h in heights)) * 1.3 or 1.0
    chart = Chart(
        "Scores of listed people and of strangers",
        Axis("cosine with the nearest template (strangers) or the own one (listed)", -0.2, 1.0),
        Axis("share of probes", 0.0, top, percent=True),
        legend_top=True,
    )
    for height, name in zip(heights, ("people on the list", "strangers"), strict=True):
        chart.steps(edges.tolist(), height.tolist(), name)
    point = outcome.evaluation.points[0]
    chart.upright(point.threshold, "")
    note = "<p>Dotted: the threshold for FPIR 1 %.</p>"
    return f"<h2>Scores</h2>{chart.svg()}{note}"


def _persons(evaluation: Evaluation) -> str:
    if not evaluation.persons:
        return (
            "<h2>Per person</h2><p>Nobody on the list, or no stranger, has five usable pictures"
            " outside the gallery: nothing can be said of fused pictures.</p>"
        )
    rows = [
        [f"{fused.pictures} fused", _asked(point), *_figures(point)]
        for fused in evaluation.persons
        for point in fused.points
    ]
    return "<h2>Per person</h2>" + table(
        "Several pictures of a person fused by their mean, as the node fuses a track. These were"
        " taken on different days; a track's differ less and gain less. The same people in"
        " every row; strangers include the listed people with their own template left out",
        ["pictures", "at", "threshold", "TPIR", "FPIR"],
        rows,
    )


def _verification(evaluation: Evaluation) -> str:
    result = evaluation.verification
    if result is None:
        return "<h2>Verification</h2><p>Too few people for ten folds of pairs.</p>"
    tars = "; ".join(
        f"TAR {tar:.2%} at FAR {far:.1%}" for far, tar in result.tar_at_far.items()
    ).replace("%", " %")
    accuracy = f"{result.accuracy:.2%} ± {result.deviation:.2%}".replace("%", " %")
    return (
        f"<h2>Verification</h2><p>Pairs in the manner of LFW's View 2 (drawn here, {result.same}"
        f" of one person and {result.different} of two, ten folds of different people): accuracy"
        f" {accuracy} (standard error); {tars}. Pictures without a usable face are left out here,"
        " and only here.</p>"
    )


def _promises(evaluation: Evaluation) -> str:
    """Whether the model's own table holds for these strangers."""
    rows = [
        [
            f"{check.fpir:.1%}".replace("%", " %"),
            f"{check.threshold:.3f}",
            f"{check.low:.2%} to {check.high:.2%}".replace("%", " %"),
            f"{check.observed:.2%}".replace("%", " %"),
            "kept" if check.held else "better" if check.observed < check.low else "BROKEN",
        ]
        for check in evaluation.promises
    ]
    if not rows:
        return ""
    return "<h2>Does the node keep its word?</h2>" + table(
        "False alerts that the model's calibration promises for a list of this length, and what"
        " these strangers raised. It is made for fused tracks; single pictures raise fewer",
        ["asked", "threshold", "should be", "was", ""],
        rows,
    )


def _acquired(evaluation: Evaluation) -> str:
    rows = [
        [
            role,
            *(f"{n:,}" for n in (a.pictures, a.unreadable, a.faceless, a.refused, a.several)),
            f"{(a.unreadable + a.faceless) / a.pictures:.2%}".replace("%", " %"),
            f"{a.failed / a.pictures:.2%}".replace("%", " %"),
        ]
        for role, a in evaluation.acquired.items()
    ]
    return "<h2>Pictures that gave no probe</h2>" + table(
        "Failures stay in the denominators above: a listed person without a face is missed, a"
        " stranger without one raises no alert. Of several faces the one nearest to the middle"
        " of the picture is taken",
        ["role", "pictures", "unreadable", "no face", "refused", "several faces", "FTD", "FTA"],
        rows,
    )


def _findings(made: Made, evaluation: Evaluation) -> str:
    said = [*made.findings, *evaluation.duplicates]
    if not said:
        return ""
    items = "".join(f"<li>{escape(line)}" for line in said)
    return f"<h2>Found in the data</h2><ul class=w>{items}</ul>"


def _pairs(title: str, pairs: Sequence[Pair], folder: Path, *, pictures: bool) -> str:
    def cell(path: Path, subject: str) -> str:
        return f"<td class=l>{_link(path, folder, pictures=pictures)} {escape(subject)}</td>"

    rows = "".join(
        f"<tr><td>{pair.similarity:.3f}</td>{cell(pair.probe, pair.probe_subject)}"
        f"{cell(pair.template, pair.template_subject)}</tr>"
        for pair in pairs
    )
    return (
        f"<h2>{title}</h2><p>Look at them before believing the tail: in public data it is made of"
        " wrong labels. Put those into an errata file (a column <code>image</code>) and run again."
        f"</p><table><tr><th>cosine<th>probe<th>template</tr>{rows}</table>"
    )


def _link(path: Path, folder: Path, *, pictures: bool) -> str:
    where = quote(os.path.relpath(path, folder))
    if pictures:
        return f'<a href="{where}"><img loading=lazy src="{where}" alt="{escape(path.name)}"></a>'
    return f'<a href="{where}">{escape(path.name)}</a>'
