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

import msgspec
import numpy as np

from appliance.errors import EvaluationError
from appliance.evaluation.assess import Evaluation, Pair
from appliance.evaluation.groups import Difference, Group
from appliance.evaluation.identification import Operating, Rate
from appliance.evaluation.svg import Axis, Chart

HTML, JSON = "report.html", "report.json"

_SMALL = 0.05
_SHOWN_FUSED = 0.005
"""FPIR from which the curve per person is drawn: there are fewer people than pictures."""

_STYLE = """
body{font:15px/1.5 sans-serif;max-width:56em;margin:2em auto;padding:0 1em;color:#111}
table{border-collapse:collapse;margin:1em 0}th,td{padding:.25em .7em;border-bottom:1px solid #ccc;
text-align:right;vertical-align:top;white-space:nowrap}
th:first-child,td:first-child,th.l,td.l{white-space:normal}th:first-child,td:first-child{text-align:left}
caption{text-align:left;color:#444;padding-bottom:.3em}svg{max-width:100%;height:auto}
.w{border-left:4px solid #000;padding:.1em 1em;margin:1em 0;background:#f4f4f4}
img{height:96px;vertical-align:middle}td.l{text-align:left}@media print{img{height:60px}}
"""


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


def write_both(folder: Path, html: str, record: object) -> Path:
    """A page for people and what it tells as JSON beside it; each is whole or not there.

    Raises:
        EvaluationError: the folder cannot be written to.
    """
    plain = msgspec.json.encode(msgspec.to_builtins(record, enc_hook=str, str_keys=True))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / JSON, msgspec.json.format(plain, indent=1))
        _replace(folder / HTML, html.encode())
    except OSError as e:
        raise EvaluationError(f"{folder}: cannot be written to: {e.strerror}") from e
    return folder / HTML


def frame(title: str, opening: str, parts: Sequence[str]) -> str:
    """A whole page; `parts` are HTML, the other two are escaped."""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Picket: {escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><p>{escape(opening)}</p>"
        + "\n".join(parts)
    )


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


def percent(rate: Rate | None) -> str:
    """A rate with its interval."""
    if rate is None:
        return "-"
    # Small rates need a digit more than large ones.
    digits = 1 if max(rate.value, rate.high) > _SMALL else 2
    value, low, high = (f"{x:.{digits}%}" for x in (rate.value, rate.low, rate.high))
    return f"{value} [{low}, {high}]".replace("%", " %")


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


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; cells are escaped."""
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><caption>{escape(caption)}</caption><tr>{heads}</tr>{cells}</table>"


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


def by_group(groups: Sequence[Group], what: str) -> str:
    """A chart and a table; nothing without groups."""
    if not groups:
        return ""
    rows = [
        [
            f"{g.column}: {g.value}",
            f"{g.tpir.subjects if g.tpir else 0} / {g.fpir.subjects if g.fpir else 0}",
            percent(g.tpir),
            _points(g.difference),
            percent(g.fpir),
            _points(g.fpir_difference),
            g.warning,
        ]
        for g in groups
    ]
    measured = [g for g in groups if g.tpir is not None]
    chart = Chart(
        "TPIR per group",
        Axis("TPIR at the common threshold", 0.0, 1.0, percent=True),
        Axis("", 0.0, len(measured) + 1.0),
        height=70 + 24 * (len(measured) + 1),
    )
    for row, group in enumerate(reversed(measured), 1):
        rate = group.tpir
        if rate is not None:
            chart.whisker(row, rate.value, rate.low, rate.high, group.value[:11])
    return (
        "<h2>By group</h2>"
        + chart.svg(names=False)
        + table(
            f"{what}. Differences are to all others of known"
            " value; their intervals are widened for the number of groups. * leaves zero out",
            [
                "group",
                "people: list / strangers",
                "TPIR",
                "difference",
                "FPIR",
                "difference",
                "beware",
            ],
            rows,
        )
    )


def _points(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    text = f"{difference.value:+.1%} [{difference.low:+.1%}, {difference.high:+.1%}]"
    return text.replace("%", " %") + (" *" if difference.clear else "")


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


def _replace(path: Path, content: bytes) -> None:
    scratch = path.with_suffix(".part")
    scratch.write_bytes(content)
    scratch.replace(path)
