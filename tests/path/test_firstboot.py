"""A card's first start, against a folder: a node from one file, or the reason why not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.cli import main
from appliance.errors import ProvisionError
from appliance.indicator.patterns import CARD, SHUT, STATUS, Rhythm, misprovisioned
from appliance.indicator.simulated import SimulatedLamps
from appliance.services.firstboot import (
    Places,
    data_is_shut,
    first_boot,
    lamps_on,
    report,
)
from appliance.services.misprovisioned import blink
from appliance.system import card
from appliance.system.clock import SimulatedClock, SystemClock
from appliance.types import Lamp, NodeState
from tests.path.cards import document

TOKEN = "12" * 32


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places.under(tmp_path)
    made.card.mkdir(parents=True)
    return made


def insert(places: Places, **more: Any) -> Path:
    """Put a file on the card."""
    path = places.card / card.FILE
    path.write_bytes(card.write(document(**more)))
    return path


def status(places: Places) -> str:
    return (places.card / card.STATUS).read_text(encoding="utf-8")


def everything(root: Path) -> bytes:
    return b"".join(p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file())


def test_a_card_becomes_a_node_and_its_token_leaves_the_first_partition(places: Places) -> None:
    path = insert(places, network={"address": "10.0.0.17/24"})
    with path.open("rb") as still_open:
        assert first_boot(places)
        assert not still_open.read().strip(b"\0"), "overwritten before it was removed"
    assert [p.name for p in places.card.iterdir()] == [card.STATUS]
    here = config.load(places.node_toml)
    assert here.node.id == "cam-017"
    assert here.node.identity == str(places.identity)
    assert here.link.state == str(places.state)
    assert TOKEN in places.ticket.read_text(encoding="ascii")
    assert places.ticket.stat().st_mode & 0o777 == 0o600
    assert "Address=10.0.0.17/24" in (places.system / "picket.network").read_text()
    assert status(places).startswith("state: joining\n")
    assert TOKEN.encode() not in everything(places.card)


def test_once_more_is_nothing_to_do(places: Places, tmp_path: Path) -> None:
    insert(places)
    assert first_boot(places)
    before = everything(tmp_path)
    assert not first_boot(places)
    assert everything(tmp_path) == before


def test_power_that_went_while_the_file_was_erased_is_no_fault(places: Places) -> None:
    path = insert(places)
    first_boot(places)
    path.write_bytes(bytes(3000))
    assert not first_boot(places)
    assert not path.exists()


def test_a_new_file_changes_the_network_of_the_same_node(places: Places) -> None:
    insert(places)
    first_boot(places)
    insert(places, network={"address": "10.0.0.99/24"})
    assert first_boot(places)
    assert "10.0.0.99" in (places.system / "picket.network").read_text()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ('{"encrypted": true, "by": "tpm", "why": ""}', "data: encrypted to this board (tpm)"),
        ('{"encrypted": false, "by": "", "why": "no TPM"}', "data: NOT ENCRYPTED: no TPM"),
        ("", ""),
        ("[1]", ""),
    ],
)
def test_the_status_says_whether_the_data_is_encrypted(
    places: Places, said: str, line: str
) -> None:
    places.data.parent.mkdir()
    places.data.write_text(said)
    insert(places)
    first_boot(places)
    assert not data_is_shut(places)
    assert (line in status(places).splitlines()) is bool(line)
    assert ("data:" in status(places)) is bool(line)


def test_data_that_stays_shut_is_known_from_what_opens_it(places: Places) -> None:
    places.data.parent.mkdir()
    places.data.write_text('{"encrypted": false, "by": "", "why": "", "fault": "another board"}')
    assert data_is_shut(places)


def test_ssh_is_in_the_status_and_gone_when_a_new_file_does_not_ask_for_it(
    places: Places,
) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "Ab" * 21 + "c"
    insert(places, ssh={"key": key, "from": ["10.0.0.9"]})
    assert first_boot(places)
    assert "ssh: OPEN for the user service, from 10.0.0.9" in status(places).splitlines()
    assert key in (places.system / "authorized_keys").read_text()
    insert(places)
    assert first_boot(places)
    assert not (places.system / "authorized_keys").exists()
    assert "ssh" not in status(places)
    assert "dport 22" not in (places.system / "nftables.conf").read_text()


def test_a_node_that_has_joined_takes_no_other_name(places: Places) -> None:
    insert(places)
    first_boot(places)
    places.state.mkdir(parents=True)
    for name in ("tls.key", "tls.crt", "ca.crt"):
        (places.state / name).write_text("there")
    other = document()
    other["node"]["id"] = "cam-018"
    (places.card / card.FILE).write_bytes(card.write(other))
    with pytest.raises(ProvisionError, match="this card is cam-017 of harbour"):
        first_boot(places)
    assert config.load(places.node_toml).node.id == "cam-017"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "missing"),
        (b"", "empty"),
        (bytes(100), "empty"),
        (b"format = 1\n", "node"),
        (card.write(document(camera={"fps": 500.0})), "camera.fps"),
        (card.write(document(camera={"source": "recorded"})), "camera.path"),
        (card.write(document(link={"controllers": ["tls+tcp://h"]})), "tls+tcp://HOST:PORT"),
        (card.write(document(join={"token": "0" * 64, "ca": document()["join"]["ca"]})), "used"),
    ],
)
def test_a_bad_card_says_why_and_nothing_is_written(
    places: Places, tmp_path: Path, content: bytes | None, why: str
) -> None:
    if content is not None:
        (places.card / card.FILE).write_bytes(content)
    with pytest.raises(ProvisionError) as refused:
        first_boot(places)
    assert why in str(refused.value)
    assert "state: FAULT\n" in status(places)
    assert why in status(places)
    assert "what to do: " in status(places)
    assert not places.node_toml.exists()
    assert not (tmp_path / "data").exists()
    assert not places.ticket.exists()


def test_the_command_fails_in_one_line_and_with_its_own_status(
    places: Places, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    insert(places, format=7)
    assert main(["first-boot", "--root", str(tmp_path), "--no-join"]) == 2
    assert capfd.readouterr().err.count("\n") == 1
    insert(places)
    assert main(["first-boot", "--root", str(tmp_path), "--no-join"]) == 0
    assert main(["first-boot", "--root", str(tmp_path), "--report", "no route to host"]) == 0
    assert "why: no route to host" in status(places)


def test_a_controller_that_does_not_answer_is_in_the_status_and_written_once(
    places: Places,
) -> None:
    insert(places)
    first_boot(places)
    assert not report(places, "no answer within 30 s")
    before = (places.card / card.STATUS).stat()
    assert not report(places, "no answer within 30 s")
    after = (places.card / card.STATUS).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_broken_file_still_names_its_lamps(places: Places) -> None:
    path = insert(places, lamps={"driver": "terminal"}, format=9)
    assert lamps_on(places).driver == "terminal"
    path.write_bytes(b"\xff\0")
    assert lamps_on(places).driver == "gpio"
    path.write_bytes(card.write(document(lamps={"driver": "neon"})))
    assert lamps_on(places).driver == "gpio"


@pytest.mark.parametrize(
    ("code", "drawn"), [(CARD, "xxxxxx   xx   xx"), (SHUT, "xxxxxx   xx   xx   xx")]
)
def test_a_bad_card_has_a_blink_code_of_its_own(code: Rhythm, drawn: str) -> None:
    period = sum(code)
    assert period == sum(STATUS[NodeState.FAULT])
    seen = [misprovisioned((n + 0.5) / 10, code) for n in range(period)]
    alert = "".join("x" if lit[Lamp.ALERT] else " " for lit in seen)
    assert alert.rstrip() == drawn
    assert [lit[Lamp.STATUS] for lit in seen] != [lit[Lamp.ALERT] for lit in seen]
    assert not any(lit[Lamp.CAMERA] for lit in seen)


def test_leds_are_found_again_without_the_data_partition(places: Places) -> None:
    wired = {"driver": "gpio", "status": {"bcm": 5, "colour": "green"}}
    insert(places, lamps=wired)
    first_boot(places)
    assert {p.name for p in places.card.iterdir()} == {card.STATUS, card.LAMPS}
    assert lamps_on(places).status.bcm == 5
    assert TOKEN.encode() not in everything(places.card)
    insert(places, lamps={"driver": "gpio"})
    first_boot(places)
    assert {p.name for p in places.card.iterdir()} == {card.STATUS}
    assert lamps_on(places).status.bcm != 5


def test_it_blinks_until_stopped_and_leaves_both_lamps_lit() -> None:
    lamps, stop = SimulatedLamps(), threading.Event()
    thread = threading.Thread(target=blink, args=(lamps, SystemClock(), stop))
    thread.start()
    deadline_s = time.monotonic() + 20
    while len(lamps.history) < 2 and time.monotonic() < deadline_s:
        threading.Event().wait(0.01)
    stop.set()
    thread.join()
    assert len(lamps.history) >= 3
    assert lamps.lit == {Lamp.STATUS, Lamp.ALERT}
    assert lamps.history[0][Lamp.CAMERA] is False


def test_it_fails_loudly_where_a_lamp_is_broken() -> None:
    lamps = SimulatedLamps()
    lamps.broken = True
    with pytest.raises(OSError, match="simulated fault"):
        blink(lamps, SimulatedClock(), threading.Event())


CHILD = """
import sys
from pathlib import Path
from appliance.services.firstboot import Places, first_boot
from appliance.system import card
places = Places.under(Path(sys.argv[1]))
good = Path(sys.argv[2]).read_bytes()
print("ready", flush=True)
while True:
    first_boot(places)
    (places.card / "new").write_bytes(good)
    (places.card / "new").rename(places.card / card.FILE)
"""


@pytest.mark.slow
def test_power_cuts_at_any_moment_leave_a_card_that_starts(places: Places, tmp_path: Path) -> None:
    """Killed at random; started again, it is a node, and its token is nowhere it should not be."""
    good = tmp_path / "good.toml"
    good.write_bytes(card.write(document()))
    chance = random.Random(7)  # noqa: S311 - moments, not secrets
    for _ in range(4):
        (places.card / card.FILE).write_bytes(good.read_bytes())
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(good)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.05))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        first_boot(places)
        assert config.load(places.node_toml).node.id == "cam-017"
        assert TOKEN in places.ticket.read_text(encoding="ascii")
        (places.card / "new").unlink(missing_ok=True)  # the test's own
        assert {p.name for p in places.card.iterdir()} <= {card.STATUS}
