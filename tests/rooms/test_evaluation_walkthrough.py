import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import EvaluationError
from appliance.evaluation.walks import read_alerts, read_walks
from appliance.evaluation.walkthrough import judge, walkthrough

HEADER = "subject,from,to,listed,sex\n"
NOON = 1_777_636_800_000
"""2026-05-01T12:00:00Z, in milliseconds."""


def alert(subject: str, at_s: float, sequence: int, **changes: object) -> str:
    fields = {
        "event": "alert",
        "node": "n1",
        "boot": "00",
        "sequence": sequence,
        "subject": subject,
        "decided_utc_ms": NOON + round(at_s * 1000),
        "similarity": 0.7,
    }
    return json.dumps(fields | changes)


def clock(at_s: int) -> str:
    return datetime.fromtimestamp(NOON / 1000 + at_s, UTC).isoformat()


def row(subject: str, at_s: int, listed: str = "yes", sex: str = "f") -> str:
    return f"{subject},{clock(at_s)},{clock(at_s + 10)},{listed},{sex}"


@pytest.fixture
def field(tmp_path: Path) -> tuple[Path, Path]:
    """Three walks of two listed actors and one control; two found, one false alert."""
    actors, alerts = tmp_path / "actors.csv", tmp_path / "alerts.jsonl"
    walks = [row("a", 0), row("b", 100, sex="m"), row("a", 200), row("c", 300, "no", "m")]
    actors.write_text(HEADER + "\n".join(walks) + "\n")
    events = [
        json.dumps({"event": "hello", "node": "n1"}),
        alert("a", 3, 1),
        alert("a", 3, 1),
        alert("a", 204, 2),
        alert("b", 305, 3),
        alert("b", 5000, 4),
        alert("b", 0, 5, decided_utc_ms=None),
    ]
    alerts.write_text("\n".join(events) + "\n")
    return actors, alerts


def test_a_walk_is_found_by_its_own_alert_in_its_own_time(field: tuple[Path, Path]) -> None:
    result = judge(read_walks(field[0]), read_alerts(field[1]), slack_s=2, seed=1)
    assert (result.found.trials, result.found.subjects) == (3, 2)
    assert result.found.value == pytest.approx(2 / 3)
    assert result.missed == ("b from 2026-05-01T12:01:40+00:00",)
    assert (result.false_alerts, result.controls, result.control_alarms) == (1, 1, 1)
    assert (result.undated, result.repeated) == (1, 1)
    assert [(g.column, g.value) for g in result.groups] == [("sex", "f"), ("sex", "m")]


def test_a_field_test_becomes_words_and_a_report(field: tuple[Path, Path], tmp_path: Path) -> None:
    words = walkthrough(actors=field[0], alerts=field[1], out=tmp_path / "r", slack_s=2, seed=1)
    assert "3 walks of 2 listed actors: found 66.7 % [" in words
    assert "1 people on the list, fewer than 30: too few to compare" in words
    assert "missed: b from" in words
    assert json.loads((tmp_path / "r/report.json").read_text())["false_alerts"] == 1
    assert "<svg" in (tmp_path / "r/report.html").read_text()


def test_the_slack_allows_for_two_clocks(field: tuple[Path, Path]) -> None:
    field[1].write_text(alert("a", 14, 1))
    walks, recorded = read_walks(field[0]), read_alerts(field[1])
    assert judge(walks, recorded, slack_s=5, seed=1).found.value == pytest.approx(1 / 3)
    assert judge(walks, recorded, slack_s=1, seed=1).found.value == 0


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ("a,yesterday,today,yes,f", "row 2: 'yesterday' is no time"),
        ("a,2026-05-01T12:00:00,2026-05-01T12:00:10Z,yes,f", "row 2: .* has no time zone"),
        (f"a,{clock(9)},{clock(0)},yes,f", "row 2: ends before it begins"),
        (f",{clock(0)},{clock(9)},yes,f", "row 2: no subject"),
        (f"a,{clock(0)},{clock(9)},maybe,f", "row 2: listed is 'maybe'"),
        (row("a", 0, "no"), "no walk of a listed actor"),
        (row("a", 0) + "\n" + row("a", 5), "two walks of a overlap"),
    ],
)
def test_rows_that_cannot_be_judged_are_named(tmp_path: Path, rows: str, named: str) -> None:
    (tmp_path / "actors.csv").write_text(HEADER + rows + "\n")
    with pytest.raises(EvaluationError, match=named):
        read_walks(tmp_path / "actors.csv")


@given(st.binary(max_size=200))
def test_any_bytes_as_a_record_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "record.jsonl"
    path.write_bytes(content)
    with contextlib.suppress(EvaluationError):
        assert read_alerts(path).alerts == []
