"""`picket doctor` on this machine: what is here is found good, what is missing is named."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from appliance.config import Config
from appliance.errors import LampError
from appliance.indicator.player import Player
from appliance.indicator.simulated import SimulatedLamps
from appliance.interfaces import Camera, Clock
from appliance.link.outcome import Tried, write
from appliance.link.rawrep import RawRep
from appliance.services.cameras import open_camera
from appliance.services.doctor import doctor, examine, is_encrypted
from appliance.services.firstboot import Places
from appliance.services.indicator import Indicator, connection_of
from appliance.services.leds import show_states
from appliance.system.clock import SystemClock
from appliance.system.doctor import Verdict
from appliance.types import Lamp
from appliance.wire import REQUEST_MAX_BYTES, Outcome, encode

PHOTOS = Path(__file__).resolve().parents[1] / "photos"
CHECKS = [
    "clock",
    "heat",
    "memory",
    "disk",
    "data",
    "ssh",
    "update",
    "faults",
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


def test_an_update_that_was_rolled_back_is_told(tmp_path: Path) -> None:
    (tmp_path / "release").write_text("0.2.0\n")
    tried = Tried(sha256="0" * 64, version=(0, 3, 0, 0), outcome=Outcome.ROLLED_BACK, why="hung")
    (tmp_path / "update").mkdir()
    write(tmp_path / "update", tried)
    updates = {"release": str(tmp_path / "release"), "tried": str(tmp_path / "update")}
    (found,) = (f for f in examine(config(tmp_path, updates=updates)) if f.check == "update")
    assert found.verdict is Verdict.WARN
    assert found.found == "0.2.0 runs; the last update, 0.3.0, is rolled-back: hung"


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


class Lit:
    """An indicator service on a thread, and whether its camera lamp was lit when a camera began."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, broken: bool) -> None:
        self.lamps, clock = SimulatedLamps(), SystemClock()
        self.lamps.broken = broken
        self.indicator = Indicator(Player(self.lamps, clock), clock)
        self.socket = RawRep(f"ipc://{folder / 'indicator.ipc'}", max_bytes=REQUEST_MAX_BYTES)
        self.stop = threading.Event()
        self.opened: list[bool] = []
        self.thread = threading.Thread(target=self._serve)
        monkeypatch.setattr("appliance.services.doctor.open_camera", self._open)

    def _open(self, told: Config, clock: Clock) -> Camera:
        self.opened.append(Lamp.CAMERA in self.lamps.lit)
        return open_camera(told, clock)

    def _serve(self) -> None:
        while not self.stop.is_set():
            received = self.socket.receive(0.05)
            if received is not None:
                answer = self.indicator.answer(received.message, connection_of(received.reply_to))
                self.socket.send(received.reply_to, encode(answer))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.socket.close()


def test_no_camera_is_tried_in_the_dark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lit(tmp_path, monkeypatch, broken=False) as lit:
        assert verdicts(config(tmp_path))["camera"] == "good"
        assert lit.opened == [True]
        assert Lamp.CAMERA not in lit.lamps.lit


def test_a_camera_whose_lamp_cannot_be_lit_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lit(tmp_path, monkeypatch, broken=True) as lit:
        assert verdicts(config(tmp_path))["camera"] == "bad"
        assert lit.opened == []


def test_the_lamps_of_a_running_node_are_not_played_with(tmp_path: Path) -> None:
    told = msgspec.to_builtins(config(tmp_path, lamps={"driver": "gpio"}))
    path = tmp_path / "node.toml"
    path.write_bytes(msgspec.toml.encode(told))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as indicator:
        indicator.bind(str(tmp_path / "indicator.ipc"))
        indicator.listen()
        with pytest.raises(LampError, match="indicator service has the lamps"):
            show_states(["watching"], path, seconds=0.0)


def test_what_a_card_tells_of_itself_is_found(tmp_path: Path) -> None:
    places = Places.under(tmp_path)
    places.system.mkdir(parents=True)
    (places.system / "authorized_keys").write_text("# from 10.0.0.0/28\nssh-ed25519 AAAA\n")
    places.data.parent.mkdir()
    places.data.write_text('{"encrypted": false, "why": "this board has no TPM"}')
    places.faults.mkdir()
    (places.faults / "faults").write_text("-- start 1\nwatch: the camera is gone\n")
    told = {f.check: f for f in examine(config(tmp_path), places)}
    assert told["ssh"].found == "open for the user service, from 10.0.0.0/28"
    assert told["faults"].found.endswith("the last: watch: the camera is gone")
    assert told["data"].found == "the data partition is not encrypted: this board has no TPM"


@pytest.mark.parametrize(("uuid", "encrypted"), [("CRYPT-LUKS2-ab", True), ("LVM-ab", False)])
def test_encryption_is_asked_of_the_kernel_through_what_lies_below(
    tmp_path: Path, uuid: str, *, encrypted: bool
) -> None:
    for number, below in (("253:1", ["253:0"]), ("253:0", []), ("8:1", [])):
        (tmp_path / number / "slaves").mkdir(parents=True)
        for one in below:
            (tmp_path / number / "slaves/dm-0").mkdir()
            (tmp_path / number / "slaves/dm-0/dev").write_text(f"{one}\n")
    (tmp_path / "253:0/dm").mkdir()
    (tmp_path / "253:0/dm/uuid").write_text(f"{uuid}\n")
    assert is_encrypted("253:1", tmp_path) is encrypted
    assert is_encrypted("253:0", tmp_path) is encrypted
    assert not is_encrypted("8:1", tmp_path)
    assert not is_encrypted("0:44", tmp_path)
