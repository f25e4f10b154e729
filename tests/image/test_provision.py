"""Cards for a fleet: every row right or nothing written, the same again, and joining with one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.controller import cards, rows
from appliance.controller.cli import main
from appliance.controller.fleet import Fleet
from appliance.controller.labels import ACROSS, DOWN, Label, corner, modules, pdf
from appliance.errors import ProvisionError
from appliance.services.firstboot import Places, first_boot, join_now
from appliance.system import card
from tests.path.cards import document
from tests.path.fleet_hands import Serving

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "Ab" * 21 + "c"
HEAD = "node,address,gateway,led_status,place\n"
GOOD = f"{HEAD}cam-1,10.0.0.11/24,10.0.0.1,5,Pole 7\ncam-2,dhcp,,!6,\n"


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["init", str(tmp_path / "fleet"), "--name", "harbour"]) == 0
    capsys.readouterr()
    return tmp_path / "fleet"


class Desk:
    """Where cards are made."""

    def __init__(self, fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.fleet, self.out, self._capsys = fleet, fleet.parent / "cards", capsys
        self.table = fleet.parent / "fleet.csv"

    def makes(self, text: str, *words: str) -> Any:
        self.table.write_text(text, encoding="utf-8")
        common = ["--fleet", str(self.fleet), "--out", str(self.out), "--json"]
        assert main(["provision", str(self.table), *words, *common]) == 0
        return json.loads(self._capsys.readouterr().out)

    def fails(self, *words: str, status: int = 2) -> str:
        assert main(["provision", "--fleet", str(self.fleet), *words]) == status
        said = self._capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        return said.err

    def provision(self, node: str) -> bytes:
        with zipfile.ZipFile(self.out / f"{node}.zip") as packed:
            assert packed.namelist() == [card.FILE]
            return packed.read(card.FILE)

    def nodes(self) -> Any:
        assert main(["nodes", "--json", "--fleet", str(self.fleet)]) == 0
        return json.loads(self._capsys.readouterr().out)


@pytest.fixture
def desk(fleet: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(fleet, capsys)


# Rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "row 1: column node is missing"),
        ("node\n", "no row below"),
        ("name\ncam-1\n", "row 1: no column 'name'"),
        ("node,node\na,b\n", "row 1: column node twice"),
        ("node,place\n,here\n", "row 2, node: empty"),
        ("node\ncam 1\n", "row 2, node: "),
        ("node\ncam-1\ncam-2\ncam-1\n", "row 4, node: cam-1 is row 2 already"),
        ("node,address\ncam-1,10.0.0.1\n", "row 2, address: "),
        ("node,address,gateway\ncam-1,10.0.0.7/24,10.9.0.1\n", "row 2, address: gateway 10.9"),
        ("node,wifi_ssid\ncam-1,pole\n", "row 2, wifi_ssid: wifi_ssid and wifi_psk"),
        ("node,led_status\ncam-1,99\n", "row 2, led_status: "),
        ("node,led_status\ncam-1,17\n", "camera and status are both on BCM 17"),
        ("node,led_status\ncam-1,red\n", "row 2, led_status: "),
        ("node,camera\ncam-1,webcam\n", "row 2, camera: "),
        ("node,controllers\ncam-1,http://x\n", "row 2, controllers: "),
        ("node,controllers\ncam-1,tls+tcp://x\n", "is not tls+tcp://HOST:PORT"),
        ("node,time_servers\ncam-1,-x\n", "row 2, time_servers: "),
        (f"node,ssh_key\ncam-1,{KEY}\n", "row 2, ssh_key: Object missing required field `from`"),
        ("node,ssh_from\ncam-1,10.0.0.1\n", "row 2, ssh_from: Object missing required field `key`"),
        (f"node,ssh_from,ssh_key\ncam-1,10.0.0.1,{KEY[9:]}\n", "row 2, ssh_key: is no public key"),
        (f"node,ssh_key,ssh_from\ncam-1,{KEY},10.0.0\n", "row 2, ssh_from: '10.0.0' does not"),
        (
            f"node,ssh_key,ssh_from\ncam-1,{KEY},10.0.0.1 0.0.0.0/0\n",
            "row 2, ssh_from: 0.0.0.0/0 is",
        ),
        ("node\ncam-1,more\n", "row 2: 2 cells: there are 1 columns"),
        ('node\n"cam-1\n', "not CSV"),
        (f"node,place\ncam-1,{'x' * 61}\n", "row 2, place: "),
    ],
)
def test_a_mistake_is_named_by_row_and_column(text: str, said: str) -> None:
    _, wrong = rows.parse(text, document())
    assert wrong
    assert said in "; ".join(wrong)
    assert all("\n" not in line for line in wrong)


def test_every_mistake_is_told_at_once() -> None:
    text = "node,address,led_alert,camera\ncam-1,10.0.0.1,x,y\ncam 2,,,\n"
    _, wrong = rows.parse(text, document())
    at = [line.split(":")[0] for line in wrong]
    assert sorted(at) == ["row 2, address", "row 2, camera", "row 2, led_alert", "row 3, node"]


def test_cells_become_the_keys_of_the_card() -> None:
    text = (
        "\ufeffnode,controllers,join,dns,wifi_ssid,wifi_psk,time_servers,led_status,camera,"
        "ssh_key,ssh_from\r\n"
        "cam-1,tls+tcp://a:1; tls+tcp://b:2,tls+tcp://c:3,10.0.0.2 10.0.0.3,pole,12345678,"
        f"ntp.example,!5,/dev/video0,{KEY} anna,10.0.0.8/29; 10.0.1.1\r\n\r\n"
    )
    (row,), wrong = rows.parse(text.removeprefix("\ufeff"), document())
    assert wrong == []
    made = card.convert(row.document)
    assert made.link.controllers == ("tls+tcp://a:1", "tls+tcp://b:2")
    assert made.network.dns == ("10.0.0.2", "10.0.0.3")
    assert (made.lamps.status.bcm, made.lamps.status.active_low) == (5, True)
    assert (made.camera.source, made.camera.path) == ("recorded", "/dev/video0")
    assert made.time.servers == ("ntp.example",)
    assert made.ssh == card.Ssh(key=f"{KEY} anna", sources=("10.0.0.8/29", "10.0.1.1"))


@given(st.text(max_size=200))
def test_no_text_is_anything_but_rows_or_mistakes(text: str) -> None:
    read, wrong = rows.parse("node,address,led_status,camera\n" + text, document())
    assert read or wrong


# Cards


def test_a_dry_run_writes_nothing(desk: Desk) -> None:
    told = desk.makes(GOOD)
    assert told["applied"] is False
    assert told["nodes"] == {"cam-1": "new", "cam-2": "new"}
    assert not desk.out.exists()
    assert desk.nodes() == []


def test_cards_are_made_and_a_second_run_changes_nothing(desk: Desk) -> None:
    told = desk.makes(GOOD, "--apply")
    assert {p.name for p in desk.out.iterdir()} == {"cam-1.zip", "cam-2.zip", "labels.pdf"}
    assert told["bytes"] == sum((desk.out / f"cam-{n}.zip").stat().st_size for n in (1, 2))
    provision, _ = card.read(desk.provision("cam-1"))
    assert (provision.node.id, provision.node.fleet) == ("cam-1", "harbour")
    assert provision.network.address == "10.0.0.11/24"
    assert provision.lamps.driver == "gpio"
    assert (desk.out / "cam-1.zip").stat().st_mode & 0o777 == 0o600
    assert [row["status"] for row in desk.nodes()] == ["invited", "invited"]
    before = {p.name: (p.read_bytes(), p.stat().st_ino) for p in desk.out.glob("*.zip")}
    told = desk.makes(GOOD, "--apply")
    assert told["nodes"] == {"cam-1": "unchanged", "cam-2": "unchanged"}
    assert before == {p.name: (p.read_bytes(), p.stat().st_ino) for p in desk.out.glob("*.zip")}


def test_only_what_changed_is_written_again(desk: Desk) -> None:
    desk.makes(GOOD, "--apply")
    before = desk.provision("cam-2")
    told = desk.makes(GOOD.replace("10.0.0.11", "10.0.0.12"), "--apply")
    assert told["nodes"] == {"cam-1": "changed", "cam-2": "unchanged"}
    assert desk.provision("cam-2") == before
    (desk.out / "cam-2.zip").write_bytes(b"half a card")
    assert desk.makes(GOOD.replace("10.0.0.11", "10.0.0.12"))["nodes"]["cam-2"] == "new"


def test_a_card_whose_token_ends_or_was_replaced_gets_a_new_one(desk: Desk) -> None:
    desk.makes(GOOD, "--apply", "--hours", "0.5")
    assert set(desk.makes(GOOD)["nodes"].values()) == {"needs a new token"}
    desk.makes(GOOD, "--apply")
    assert main(["node", "add", "cam-1", "--out", str(desk.out / "n"), "--fleet",
                 str(desk.fleet)]) == 0  # fmt: skip
    desk._capsys.readouterr()
    assert desk.makes(GOOD)["nodes"] == {"cam-1": "needs a new token", "cam-2": "unchanged"}


def test_one_bad_row_and_nothing_is_written(desk: Desk) -> None:
    desk.table.write_text(GOOD + "cam-3,10.0.0.300/24,,,\n", encoding="utf-8")
    said = desk.fails(str(desk.table), "--apply", "--out", str(desk.out))
    assert "fleet.csv: row 4, address: " in said
    assert not desk.out.exists()
    assert desk.nodes() == []


def test_a_revoked_node_gets_no_card(desk: Desk) -> None:
    desk.makes(GOOD, "--apply")
    assert main(["revoke", "cam-2", "--fleet", str(desk.fleet)]) == 0
    desk._capsys.readouterr()
    assert "revoked or in quarantine: cam-2" in desk.fails(
        str(desk.table), "--apply", "--out", str(desk.out)
    )


def test_what_is_no_list_is_one_line(desk: Desk, tmp_path: Path) -> None:
    assert "cannot be read" in desk.fails(str(tmp_path / "none.csv"))
    (tmp_path / "latin.csv").write_bytes(b"node\n\xe4\n")
    assert "not UTF-8" in desk.fails(str(tmp_path / "latin.csv"))
    assert "name a list" in desk.fails()
    assert "both or neither" in desk.fails("--device", "/dev/sdx")
    (tmp_path / "fleet.csv").write_text(GOOD)
    said = desk.fails("--fleet", str(tmp_path / "fleet.csv"))
    assert f"stands by itself: picketctl provision {tmp_path / 'fleet.csv'}" in said


def test_a_node_joins_with_its_card_and_then_its_card_is_left_alone(
    desk: Desk, tmp_path: Path
) -> None:
    with Serving(desk.fleet) as serving:
        head, urls = "node,controllers,join", f"{serving.url},{serving.join_url}"
        text = f"{head}\ncam-1,{urls}\n"
        desk.makes(text, "--apply")
        places = Places.under(tmp_path / "node")
        places.card.mkdir(parents=True)
        with zipfile.ZipFile(desk.out / "cam-1.zip") as packed:
            packed.extractall(places.card)
        assert first_boot(places)
        join_now(places)
        serving.told("joined", node="cam-1")
    said = (places.card / card.STATUS).read_text(encoding="utf-8")
    assert said.startswith("state: joined\n")
    assert not places.ticket.exists()
    assert not first_boot(places)
    assert desk.makes(text)["nodes"] == {"cam-1": "has joined: left alone"}


def test_the_plan_needs_no_card_to_be_ours(fleet: Path, tmp_path: Path) -> None:
    common = cards.common(Fleet.load(fleet))
    common["link"]["controllers"] = ["tls+tcp://nowhere"]
    path = tmp_path / "fleet.csv"
    path.write_text("node\ncam-1\n")
    with pytest.raises(ProvisionError, match="row 2"):
        rows.read(path, common)


# Labels


def test_a_label_says_fleet_and_node_to_a_phone() -> None:
    label = Label("cam-017", "harbour")
    dark = np.array(modules(label.code), np.bool_)
    picture = np.where(np.kron(np.pad(dark, 4), np.ones((8, 8), np.bool_)), 0, 255)
    read, _, _ = cv2.QRCodeDetector().detectAndDecode(picture.astype(np.uint8))
    assert read == "picket:harbour/cam-017"


def test_sheets_hold_every_label_and_are_the_same_each_time() -> None:
    labels = [Label(f"cam-{n}", "harbour", "High Street") for n in range(ACROSS * DOWN + 1)]
    made = pdf(labels)
    assert made.startswith(b"%PDF")
    assert b"/Count 2" in made
    assert made == pdf(labels)
    assert all(corner(n)[1] >= 0 for n in range(ACROSS * DOWN))
