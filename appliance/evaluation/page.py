"""Parts of a page: its frame, tables, groups; and how a page and its JSON are written.

Enters: words and numbers. Leaves: HTML that needs nothing else to be read, in one file.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import msgspec

from appliance.errors import EvaluationError
from appliance.evaluation.groups import Difference, Group
from appliance.evaluation.identification import Rate
from appliance.evaluation.svg import Axis, Chart

HTML, JSON = "report.html", "report.json"

_SMALL = 0.05
_STYLE = """
body{font:15px/1.5 sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#111}
table{border-collapse:collapse;margin:1em 0;font-size:14px}
th,td{padding:.25em .7em;border-bottom:1px solid #ccc;
text-align:right;vertical-align:top;white-space:nowrap}
td:first-child{min-width:7em}
th:first-child,td:first-child,th.l,td.l{white-space:normal}
th:first-child,td:first-child{text-align:left}
caption{text-align:left;color:#444;padding-bottom:.3em}svg{max-width:100%;height:auto}
.w{border-left:4px solid #000;padding:.1em 1em .1em 2em;margin:1em 0;background:#f4f4f4}
img{height:96px;vertical-align:middle}td.l{text-align:left}@media print{img{height:60px}}
"""


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


def percent(rate: Rate | None) -> str:
    """A rate with its interval."""
    if rate is None:
        return "-"
    # Small rates need a digit more than large ones.
    digits = 1 if max(rate.value, rate.high) > _SMALL else 2
    value, low, high = (f"{x:.{digits}%}" for x in (rate.value, rate.low, rate.high))
    return f"{value} [{low}, {high}]".replace("%", " %")


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; cells are escaped."""
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><caption>{escape(caption)}</caption><tr>{heads}</tr>{cells}</table>"


def by_group(groups: Sequence[Group], what: str) -> str:
    """A chart, a table and words of caution; nothing without groups."""
    if not groups:
        return ""
    measured = [g for g in groups if g.tpir is not None]
    chart = Chart(
        "TPIR per group",
        Axis("TPIR at the common threshold", 0.0, 1.0, percent=True),
        Axis("", 0.0, len(measured) + 1.0),
        height=70 + 24 * (len(measured) + 1),
    )
    for row, group in enumerate(reversed(measured), 1):
        if group.tpir is not None:
            rate = group.tpir
            chart.whisker(row, rate.value, rate.low, rate.high, group.value)
    cautions = "".join(
        f"<li>{escape(f'{g.column} {g.value}: {g.warning}')}" for g in groups if g.warning
    )
    return (
        "<h2>By group</h2>"
        + chart.svg(names=False)
        + _group_table(groups, what)
        + (f"<ul class=w>{cautions}</ul>" if cautions else "")
    )


def _group_table(groups: Sequence[Group], what: str) -> str:
    """With false alerts if any group has strangers; a field test has not."""
    strangers = any(g.fpir is not None for g in groups)
    head = ["group", "listed", "TPIR", "difference"]
    head += ["strangers", "FPIR", "difference"] * strangers
    rows = []
    for group in groups:
        row = [
            f"{group.column}: {group.value}",
            f"{group.tpir.subjects if group.tpir else 0}",
            percent(group.tpir),
            _points(group.difference),
        ]
        if strangers:
            row += [
                f"{group.fpir.subjects if group.fpir else 0}",
                percent(group.fpir),
                _points(group.fpir_difference),
            ]
        rows.append(row)
    return table(
        f"{what}. Differences are to all others of known value, in points; their intervals are"
        " widened for the number of groups. * leaves zero out",
        head,
        rows,
    )


def _points(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    value, low, high = (100 * x for x in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" + (" *" if difference.clear else "")


def _replace(path: Path, content: bytes) -> None:
    scratch = path.with_suffix(".part")
    scratch.write_bytes(content)
    scratch.replace(path)
