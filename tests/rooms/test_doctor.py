"""What the doctor says of what was measured."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from appliance.system import doctor as judged
from appliance.system.doctor import Verdict
from appliance.system.thermal import Thermal
from appliance.wire import Outcome

NOW = datetime(2026, 11, 25, 13, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SHUT = {"Seccomp": "2", "NoNewPrivs": "1", "CapEff": "0000000000000000", "net": "own"}


def test_something_bad_fails_and_a_warning_does_not() -> None:
    findings = [
        judged.good("a", "fine"),
        judged.warn("b", "so so", "look"),
        judged.unknown("c", ""),
    ]
    assert judged.exit_status(findings) == 0
    assert judged.exit_status([*findings, judged.bad("d", "broken", "mend it")]) == 1


def test_the_report_says_for_each_what_is_wrong_and_what_to_do() -> None:
    findings = [judged.good("clock", "synchronised"), judged.bad("camera", "gone", "plug it in")]
    text = judged.as_text(findings).splitlines()
    assert [line.split() for line in text[:2]] == [
        ["good", "clock", "synchronised"],
        ["bad", "camera", "gone"],
    ]
    assert text[2].strip() == "→ plug it in"
    assert json.loads(judged.as_json(findings))[1] == {
        "check": "camera",
        "verdict": "bad",
        "found": "gone",
        "advice": "plug it in",
    }


@pytest.mark.parametrize(
    ("lines", "verdict", "found"),
    [
        (None, Verdict.UNKNOWN, "nothing is kept"),
        ([], Verdict.GOOD, "none kept"),
        (["-- start 1", "-- start 2"], Verdict.GOOD, "none kept"),
        (["-- start 1", "a", "-- start 2"], Verdict.GOOD, "1 kept, 0 of them since"),
        (["-- start 1", "a", "-- start 2", "b", "-- and 9 more"], Verdict.WARN,
         "2 kept, 1 of them since the last start; the last: b"),
        (["a", "b"], Verdict.WARN, "2 kept, 2 of them"),
    ],
)  # fmt: skip
def test_faults_since_the_last_start_are_worth_a_look(
    lines: list[str] | None, verdict: Verdict, found: str
) -> None:
    finding = judged.faults(lines)
    assert finding.verdict is verdict
    assert found in finding.found
    assert bool(finding.advice) is (verdict is Verdict.WARN)


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [
        (judged.data(encrypted=True, why="tpm"), Verdict.GOOD),
        (judged.data(encrypted=False, why="this board has no TPM"), Verdict.WARN),
        (judged.ssh(None), Verdict.GOOD),
        (judged.ssh("from 10.0.0.9"), Verdict.WARN),
        (judged.camera((1280, 720), 0.2, 92.0), Verdict.GOOD),
        (judged.camera((1280, 720), 0.2, 2.0), Verdict.WARN),
        (judged.accelerator("auto", "hailo", [], "hailo_pci 4.23.0"), Verdict.GOOD),
        (judged.accelerator("coral", "cpu", ["coral: none"], ""), Verdict.BAD),
        (judged.clock(NOW), Verdict.GOOD),
        (judged.clock(None), Verdict.WARN),
        (judged.disk("/var/lib", 900.0, None), Verdict.GOOD),
        (judged.disk("/var/lib", 60.0, None), Verdict.WARN),
        (judged.disk("/var/lib", 900.0, "Read-only file system"), Verdict.BAD),
        (judged.memory(500.0), Verdict.GOOD),
        (judged.memory(60.0), Verdict.WARN),
        (judged.heat(Thermal(celsius=50.0)), Verdict.GOOD),
        (judged.heat(Thermal(celsius=80.0)), Verdict.WARN),
        (judged.heat(Thermal(celsius=50.0, throttled=True)), Verdict.WARN),
        (judged.heat(Thermal(celsius=50.0, was_under_voltage=True)), Verdict.WARN),
        (judged.heat(Thermal()), Verdict.UNKNOWN),
        (judged.update(None, "", Outcome.NONE, ""), Verdict.UNKNOWN),
        (judged.update("0.2.0", "", Outcome.NONE, ""), Verdict.GOOD),
        (judged.update("0.2.0", "0.3.0", Outcome.TRYING, ""), Verdict.GOOD),
        (judged.update("0.3.0", "0.3.0", Outcome.INSTALLED, ""), Verdict.GOOD),
        (judged.update("0.2.0", "0.3.0", Outcome.ROLLED_BACK, "hung"), Verdict.WARN),
        (judged.update("0.2.0", "", Outcome.REFUSED, "bad signature"), Verdict.WARN),
        (judged.certificate(NOW - DAY, NOW + 30 * DAY, NOW), Verdict.GOOD),
        (judged.certificate(NOW - DAY, NOW + 3 * DAY, NOW), Verdict.WARN),
        (judged.certificate(NOW - DAY, NOW, NOW), Verdict.BAD),
        (judged.certificate(NOW + DAY, NOW + 30 * DAY, NOW), Verdict.BAD),
        (judged.certificate(NOW - DAY, NOW + 30 * DAY, None), Verdict.UNKNOWN),
        (judged.controllers({"tls+tcp://a:1": 0.01}), Verdict.GOOD),
        (judged.controllers({"tls+tcp://a:1": 0.01, "tls+tcp://b:1": "refused"}), Verdict.WARN),
        (judged.controllers({"tls+tcp://a:1": "refused"}), Verdict.BAD),
        (judged.sandbox({"watch": SHUT, "link": SHUT, "indicator": SHUT}), Verdict.GOOD),
        (judged.sandbox({"watch": SHUT, "link": "none"}), Verdict.WARN),
        (judged.sandbox({"watch": "none", "link": "none"}), Verdict.UNKNOWN),
        (judged.sandbox({"link": SHUT | {"net": "shared"}}), Verdict.GOOD),
    ],
)
def test_verdicts(finding: judged.Finding, verdict: Verdict) -> None:
    assert finding.verdict is verdict
    assert bool(finding.advice) == (verdict in {Verdict.WARN, Verdict.BAD}) or (
        verdict is Verdict.UNKNOWN
    )


@pytest.mark.parametrize(
    ("lines", "door"),
    [
        ({"Seccomp": "0"}, "no filter of system calls"),
        ({"NoNewPrivs": "0"}, "may gain privileges"),
        ({"CapEff": "00000000a80425fb"}, "has capabilities"),
        ({"net": "shared"}, "sees the network"),
    ],
)
def test_every_open_door_is_named(lines: dict[str, str], door: str) -> None:
    finding = judged.sandbox({"watch": SHUT | lines})
    assert finding.verdict is Verdict.BAD
    assert finding.found == f"watch: {door}"
