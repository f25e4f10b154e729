"""What is kept of faults: bounded, across restarts, and not so much that it wears a card out.

And who the link may speak to. The image's own scripts, with a program of ours in systemd's place.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from appliance.cli import main
from appliance.services.faults import kept
from appliance.system import doctor, netfiles
from appliance.system.card import convert
from tests.image.board import SCRIPTS
from tests.path.cards import document


def ring(folder: Path, lines: list[str], **limits: int) -> None:
    """One run of the ring, as from a start of the node to its end."""
    subprocess.run(
        [str(SCRIPTS / "ring"), str(folder)],
        input="".join(f"{line}\n" for line in lines), text=True, check=True,
        env=os.environ | {f"PICKET_RING_{name.upper()}": str(n) for name, n in limits.items()},
    )  # fmt: skip


def test_a_fault_is_there_after_a_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring(tmp_path, ["-- start one", "watch: broken"])
    ring(tmp_path, ["-- start two"])
    assert kept(tmp_path) == ["-- start one", "watch: broken", "-- start two"]
    assert main(["faults", "--folder", str(tmp_path)]) == 0
    assert "watch: broken\n" in capsys.readouterr().out
    assert kept(tmp_path / "none") is None


def test_the_doctor_knows_a_start_from_a_fault() -> None:
    assert f'echo "{doctor._START}of ' in (SCRIPTS / "faults").read_text(encoding="utf-8")
    assert f'"{doctor._NO_FAULT}and $more lines more' in (SCRIPTS / "ring").read_text("utf-8")


def test_it_never_grows_beyond_its_bound_and_keeps_the_newest(tmp_path: Path) -> None:
    for run in range(3):
        ring(tmp_path, [f"{run} {n:04} {'x' * 100}" for n in range(60)], bytes=8192, hourly=999)
        assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 8192
        assert {p.name for p in tmp_path.iterdir()} <= {"faults", "faults.old"}
    lines = kept(tmp_path) or []
    assert lines[-1].startswith("2 0059 ")
    assert 30 < len(lines) < 80
    assert lines == sorted(lines)


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    ring(tmp_path, ["y" * 100_000, "\xff\x1b[31m"])
    assert len((kept(tmp_path) or [""])[0]) == 500


def test_a_service_that_fails_all_the_time_does_not_wear_the_card_out(tmp_path: Path) -> None:
    ring(tmp_path, [f"line {n}" for n in range(50)], hourly=5)
    assert kept(tmp_path) == [f"line {n}" for n in range(5)]


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    for _ in range(4):
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"while :; do echo a fault; done | {SCRIPTS / 'ring'} {tmp_path}"],
            env=os.environ | {"PICKET_RING_BYTES": "4096", "PICKET_RING_HOURLY": "100000"},
            start_new_session=True,
        )
        deadline_s = time.monotonic() + 20
        while not (tmp_path / "faults").exists() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    ring(tmp_path, ["the last"], bytes=4096)
    assert (kept(tmp_path) or [])[-1] == "the last"
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 4096


def test_the_link_is_told_its_controllers_at_every_start(tmp_path: Path) -> None:
    """The file that first boot writes, by the script that hands it to systemd."""
    link = {"controllers": ["tls+tcp://203.0.113.9:7441"], "join": "tls+tcp://[2001:db8::9]:7442"}
    made = netfiles.files(convert(document(link=link)))
    (tmp_path / netfiles.REACH).write_text(made[netfiles.REACH])
    systemctl = tmp_path / "systemctl"
    systemctl.write_text('#!/bin/sh\nprintf "%s|" "$@" >>"$0.log"\necho >>"$0.log"\n')
    systemctl.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PICKET_REACH": str(tmp_path / netfiles.REACH),
    }
    subprocess.run([str(SCRIPTS / "reach")], env=environment, check=True)
    told = (tmp_path / "systemctl.log").read_text().splitlines()
    allowed = "IPAddressAllow=|IPAddressAllow=localhost|IPAddressAllow=203.0.113.9|"
    assert told == [
        f"set-property|--runtime|picket-{unit}.service|{allowed}IPAddressAllow=2001:db8::9|"
        for unit in ("link", "join")
    ]
    (tmp_path / netfiles.REACH).write_text("[Service]\n")
    done = subprocess.run(
        [str(SCRIPTS / "reach")], env=environment, check=False, capture_output=True
    )
    assert done.returncode == 1, "a file that allows nothing is no reason to allow everything"
