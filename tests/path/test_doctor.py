"""`picket doctor` on this machine: what is here is found good, what is missing is named."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.config import Config
from appliance.services.doctor import doctor, examine

PHOTOS = Path(__file__).resolve().parents[1] / "photos"
CHECKS = [
    "clock",
    "heat",
    "memory",
    "disk",
    "models",
    "accelerator",
    "camera",
    "lamps",
    "certificates",
    "link",
    "lease",
    "sandbox",
]


def config(folder: Path, **tables: dict[str, Any]) -> Config:
    """A node whose camera is a folder of photographs, with nothing around it."""
    (folder / "state").mkdir(exist_ok=True)
    document: dict[str, Any] = {
        "node": {
            "id": "cam-test",
            "fleet": "fleet-test",
            "authorities": ["00" * 32],
            "online_key": "00" * 32,
            "alert_key": "00" * 1216,
        },
        "camera": {"source": "recorded", "path": str(PHOTOS), "width": 320, "height": 192},
        "models": {"detector": "centerface-320x192", "threads": 1},
        "link": {"state": str(folder / "state"), "controllers": ["tls+tcp://127.0.0.1:9"]},
        "local": {"run": str(folder)},
    }
    return msgspec.convert(document | tables, Config)


def verdicts(told: Config) -> dict[str, str]:
    return {finding.check: str(finding.verdict) for finding in examine(told)}


def test_what_is_here_is_good_and_what_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(config(tmp_path), as_json=True) == 1
    told = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert list(told) == CHECKS
    for name in ("memory", "disk", "models", "accelerator", "camera", "lamps"):
        assert told[name]["verdict"] == "good", told[name]
    assert told["certificates"]["verdict"] == "bad"
    assert "has not joined" in told["certificates"]["found"]
    assert "picketctl node add" in told["certificates"]["advice"]
    assert told["link"]["verdict"] == "bad"
    assert "320 x 192" in told["camera"]["found"]


def test_as_text_every_check_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(config(tmp_path), as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[1] for line in lines if not line.startswith(" ")]
    assert named == CHECKS


def test_a_controller_that_takes_connections_is_found(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tls+tcp://127.0.0.1:{server.getsockname()[1]}"
        link = {"state": str(tmp_path / "state"), "controllers": [url]}
        assert verdicts(config(tmp_path, link=link))["link"] == "good"


@pytest.mark.parametrize(
    ("tables", "check", "verdict"),
    [
        ({"camera": {"source": "recorded", "path": "/nowhere/clip.avi"}}, "camera", "bad"),
        ({"models": {"folder": "/nowhere"}}, "models", "bad"),
        ({"models": {"detector": "yolo"}}, "accelerator", "bad"),
        ({"link": {"state": "/proc/nowhere"}}, "disk", "bad"),
    ],
)
def test_what_is_broken_is_bad_and_the_rest_is_still_checked(
    tmp_path: Path, tables: dict[str, Any], check: str, verdict: str
) -> None:
    found = verdicts(config(tmp_path, **tables))
    assert list(found) == CHECKS
    assert found[check] == verdict
