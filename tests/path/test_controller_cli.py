"""A fleet run by the commands that an operator types, over real TLS; its nodes only speak."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.controller.arguments import until
from appliance.controller.cli import main
from appliance.errors import DeniedError, LinkError
from appliance.watchlist.grant import GrantKey
from appliance.watchlist.stamp import Action, open_stamp
from appliance.wire import Ack, Answer, Deny, Offer, Row, decode_answer
from tests.path.fleet_hands import LONG_S, Node, Serving, picketctl, wait_for, write_list

PHOTOS = Path(__file__).resolve().parents[1] / "photos"
ORDERED = ("--authority", "Supt. A", "--purpose", "find", "--location", "High Street")


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["init", str(tmp_path / "fleet"), "--name", "harbour"]) == 0
    capsys.readouterr()
    return tmp_path / "fleet"


@pytest.fixture
def serving(fleet: Path) -> Iterator[Serving]:
    with Serving(fleet) as serving:
        yield serving


class Operator:
    """Types commands in this process, and reads what they print as JSON."""

    def __init__(self, fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.fleet, self._capsys = fleet, capsys

    def does(self, *words: object, status: int = 0) -> Any:
        assert main([*(str(w) for w in words), "--json", "--fleet", str(self.fleet)]) == status
        said = self._capsys.readouterr()
        assert (said.err == "") is (status in {0, 1} and bool(said.out)), said.err
        return json.loads(said.out) if said.out else said.err

    def fails(self, *words: object, status: int = 1) -> str:
        """The one line that says why."""
        assert main([*(str(w) for w in words), "--fleet", str(self.fleet)]) == status
        said = self._capsys.readouterr()
        assert said.out == ""
        assert re.fullmatch(r"picketctl: error: [^\n]+\n", said.err), said.err
        return said.err

    def lines(self, *words: object) -> list[dict[str, Any]]:
        """JSON Lines."""
        assert main([*(str(w) for w in words), "--json", "--fleet", str(self.fleet)]) == 0
        return [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]

    def node(self, name: str) -> dict[str, Any]:
        (found,) = self.does("nodes", name)
        assert isinstance(found, dict)
        return found

    def signed_list(self, folder: Path, version: int = 1, **more: Any) -> Path:
        path = write_list(folder / f"list{version}", fleet="harbour", version=version, **more)
        self.does("list", "sign", path, "--key", self.fleet / "authorities" / "authority.key")
        return path

    def deploys(self, path: Path, *nodes: str) -> Any:
        ordered = ("--nodes", *(nodes or ("cam-*",)), "--until", "+2h", *ORDERED)
        return self.does("deploy", "start", "--list", path, *ordered)


@pytest.fixture
def operator(fleet: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(fleet, capsys)


@pytest.fixture
def joined() -> Iterator[list[Node]]:
    """Nodes that a test makes with `_node`, closed at its end, before the controller is."""
    nodes: list[Node] = []
    yield nodes
    for node in nodes:
        node.close()


def _node(operator: Operator, serving: Serving, nodes: list[Node], name: str = "cam-1") -> Node:
    folder = operator.fleet.parent / name
    operator.does("node", "add", name, "--out", folder)
    nodes.append(Node(folder, serving))
    nodes[-1].greet()
    return nodes[-1]


def action(operator: Operator, answer: Answer) -> Action:
    """What a stamp orders, if the fleet's own key signed it."""
    from appliance.controller.fleet import Fleet

    assert isinstance(answer, Offer), answer
    key: Ed25519PublicKey = Fleet.load(operator.fleet).online_key.public_key()
    return open_stamp(answer.stamp, key).action


# The whole story


def test_a_list_reaches_a_node_and_its_alerts_the_operator(
    operator: Operator, serving: Serving, joined: list[Node], tmp_path: Path
) -> None:
    node = _node(operator, serving, joined)
    assert wait_for(lambda: operator.node("cam-1")["progress"] == "idle")
    begun = operator.deploys(operator.signed_list(tmp_path))
    assert begun["nodes"] == ["cam-1"]
    assert not operator.deploys(tmp_path / "list1.bundle")["deployment"]["stopped_ms"]
    pushed = node.poll(wait_ms=30_000)
    assert action(operator, pushed) is Action.GRANT
    serving.told("pushed", node="cam-1", list_version=1)
    assert len(node.fetch("market", 1, 0)) > 16
    assert isinstance(node.poll(("market", 1)), Ack)
    serving.told("accepted", node="cam-1")
    assert operator.does("push", "--wait", 10) == [
        {"node": "cam-1", "answer": "accepted", "list_version": 1, "why": ""}
    ]
    node.health(outbox=3)
    health = serving.told("health", node="cam-1")
    assert (health["state"], health["outbox"]) == ("watching", 3)
    assert health["received_boot_ns"] > 0

    node.report(node.row(1), node.row(2), node.row(4))
    alert = serving.told("alert", sequence=4)
    assert (alert["subject"], alert["list_version"], alert["node"]) == ("poi-1", 1, "cam-1")
    assert alert["nbytes"] <= 512
    told = operator.lines("alerts")
    assert [t.get("sequence") for t in told if t["event"] == "alert"] == [1, 2, 4]
    assert [(t["first"], t["last"]) for t in told if t["event"] == "gap"] == [(3, 3)]

    (status,) = operator.does("deploy", "status")
    assert status["nodes"] == {"cam-1": "accepted"}
    operator.does("deploy", "stop")
    # Until the controller has noticed: it may renew what it had changed before.
    wait_for(lambda: action(operator, node.poll(("market", 1), wait_ms=30_000)) is Action.WITHDRAW)
    assert isinstance(node.poll(), Ack)
    assert operator.does("deploy", "status") == []
    assert serving.stop() == 0
    summary = serving.told("summary")
    assert (summary["alerts"], summary["unreadable"], summary["gaps"]) == (3, 0, 1)
    kinds = [line["kind"] for line in operator.does("record")]
    assert kinds == [
        "node-invited", "node-joined", "list-added", "deployment-started", "deployment-changed",
        "list-accepted", "loss", "deployment-ended", "list-destroyed", "list-withdrawn",
    ]  # fmt: skip


def test_a_push_is_answered_for_each_node(
    operator: Operator, serving: Serving, joined: list[Node], tmp_path: Path
) -> None:
    good, bad = (_node(operator, serving, joined, name) for name in ("cam-1", "cam-2"))
    operator.does("node", "add", "cam-3", "--out", tmp_path / "cam-3")
    _node(operator, serving, joined, "door-1")
    operator.deploys(operator.signed_list(tmp_path))
    for node in (good, bad):
        assert action(operator, node.poll(wait_ms=30_000)) is Action.GRANT
        assert isinstance(node.poll(("market", 1)), Ack)
    answers: dict[str, Answer] = {}

    def parked(node: Node) -> None:
        answers[node.name] = node.poll(("market", 1), wait_ms=60_000)

    threads = [threading.Thread(target=parked, args=(node,)) for node in (good, bad)]
    for thread in threads:
        thread.start()
    newer = operator.signed_list(tmp_path, version=2)
    answered = operator.does("push", "--list", newer, "--wait", 2, status=1)
    assert {a["node"]: a["answer"] for a in answered} == {
        "cam-1": "delivered", "cam-2": "delivered", "cam-3": "not joined",
    }  # fmt: skip
    for thread in threads:
        thread.join(LONG_S)
    assert {action(operator, answer) for answer in answers.values()} == {Action.GRANT}
    assert isinstance(good.poll(("market", 2)), Ack)
    assert isinstance(bad.poll(("market", 1), refused="made by another model"), Ack)
    answered = operator.does("push", "--wait", 10, status=1)
    assert {a["node"]: (a["answer"], a["why"]) for a in answered} == {
        "cam-1": ("accepted", ""),
        "cam-2": ("refused", "made by another model"),
        "cam-3": ("not joined", ""),
    }
    assert "version 2 is newer" in operator.fails("push", "--list", tmp_path / "list1.bundle")


def test_a_wiped_node_gets_no_list_until_it_is_confirmed(
    operator: Operator, serving: Serving, joined: list[Node], tmp_path: Path
) -> None:
    node = _node(operator, serving, joined)
    operator.deploys(operator.signed_list(tmp_path))
    assert action(operator, node.poll(wait_ms=30_000)) is Action.GRANT
    operator.does("wipe", "cam-*")
    operator.does("wipe", "cam-1")
    assert action(operator, node.poll(("market", 1), wait_ms=30_000)) is Action.WIPE
    node.grant_key = GrantKey()  # what a node makes when it has wiped
    node.greet()
    with pytest.raises(DeniedError, match="quarantined: wipe ordered"):
        node.poll()
    serving.told("wiped", node="cam-1")
    assert operator.node("cam-1")["progress"] == "quarantined"
    operator.does("confirm", "cam-1")
    assert action(operator, node.poll(wait_ms=30_000)) is Action.GRANT


def test_a_revoked_node_is_cut_off_and_stays_out(
    operator: Operator, serving: Serving, joined: list[Node]
) -> None:
    node = _node(operator, serving, joined)
    other = _node(operator, serving, joined, "cam-2")
    operator.does("revoke", "cam-1", "--reason", "stolen")
    with suppress(LinkError):  # it was cut off before it asked: then there is no last word
        assert action(operator, node.poll(wait_ms=1000, timeout_s=3.0)) is Action.WIPE

    def cut_off() -> bool:
        try:
            with node.dial() as link:
                link.request(b"\x91\xa6junk/1", 1.0)
        except LinkError:
            return True
        return False

    wait_for(cut_off)
    other.greet()
    operator.does("revoke", "cam-1")
    assert operator.node("cam-1")["reason"] == "stolen"
    assert "for ever" in operator.fails("confirm", "cam-1")


def test_a_node_with_a_new_card_joins_again_and_the_old_card_is_refused(
    operator: Operator, serving: Serving, joined: list[Node]
) -> None:
    old = _node(operator, serving, joined)
    folder = operator.fleet.parent / "cam-1"
    assert "joined already" in operator.fails("node", "add", "cam-1", "--out", folder)
    shutil.move(folder, operator.fleet.parent / "old")
    operator.does("node", "add", "cam-1", "--out", folder, "--again")
    serving.told("joined", node="cam-1")
    joined.append(Node(folder, serving))
    joined[-1].greet()
    with pytest.raises(LinkError):
        old.poll()
    assert operator.node("cam-1")["certificates"] == 2


# Hostile nodes


def test_a_token_joins_one_node_once(
    operator: Operator, serving: Serving, joined: list[Node], tmp_path: Path
) -> None:
    operator.does("node", "add", "cam-1", "--out", tmp_path / "cam-1")
    shutil.copytree(tmp_path / "cam-1", tmp_path / "thief")
    joined.append(Node(tmp_path / "cam-1", serving))
    assert not (tmp_path / "cam-1" / "join.toml").exists()
    with pytest.raises(DeniedError, match="used by another request"):
        Node(tmp_path / "thief", serving)
    serving.told("denied", node="cam-1")
    assert "joined already" in operator.fails("node", "add", "cam-1")


def test_a_certificate_asks_in_its_own_name_alone(
    operator: Operator, serving: Serving, joined: list[Node]
) -> None:
    node = _node(operator, serving, joined)
    other = _node(operator, serving, joined, "cam-2")
    row = node.row(1)
    other.name = "cam-1"
    for question in (other.health, other.poll, lambda: other.report(row)):
        with pytest.raises(DeniedError, match="not a question"):
            question()
    assert "cam-2 asks as cam-1" in serving.told("hostile")["reason"]
    node.report(row)
    assert len(operator.lines("alerts")) == 1


def test_junk_is_answered_told_and_harms_nobody(
    operator: Operator, serving: Serving, joined: list[Node]
) -> None:
    node = _node(operator, serving, joined)
    for junk in (b"", b"junk", b"\x93\xa6poll/1", bytes(100_000)):
        with node.dial() as link:
            assert isinstance(decode_answer(link.request(junk, 5.0)), Deny)
    serving.told("hostile")
    node.greet()


def test_an_alert_that_does_not_open_is_shown_and_does_not_block(
    operator: Operator, serving: Serving, joined: list[Node]
) -> None:
    node = _node(operator, serving, joined)
    node.report(Row(node.boot, 1, b"junk"), node.row(2))
    serving.told("unreadable", sequence=1)
    told = operator.lines("alerts")
    assert [t["event"] for t in told] == ["unreadable", "alert"]


# What was acknowledged stays


@pytest.mark.slow
def test_kill_9_of_the_controller_loses_nothing_that_it_acknowledged(
    operator: Operator, fleet: Path
) -> None:
    serving, nodes = Serving(fleet), list[Node]()
    node = _node(operator, serving, nodes)
    acknowledged = 0
    for round_number in range(3):
        acknowledged = _report_until_killed(node, serving, acknowledged, 5 + round_number)
        serving = _again(fleet, serving)
    kept = [t["sequence"] for t in operator.lines("alerts", "-n", 1000) if t["event"] == "alert"]
    assert set(range(1, acknowledged + 1)) <= set(kept)
    assert len(kept) == len(set(kept))
    node.close()
    assert serving.stop() == 0


def _report_until_killed(node: Node, serving: Serving, done: int, more: int) -> int:
    """Report alerts while the controller is killed; the last that was acknowledged."""
    killer = threading.Thread(target=serving.kill)
    last = done
    while True:
        try:
            node.report(node.row(last + 1), timeout_s=1.0)
        except LinkError:
            killer.join(LONG_S)
            return last
        last += 1
        if last == done + more:
            killer.start()


def _again(fleet: Path, before: Serving) -> Serving:
    """The controller, started again at its addresses."""
    return Serving(fleet, before.url, before.join_url)


# Lists


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for subject, names in (("poi-1", ("obama", "obama2")), ("poi-2", ("biden",))):
        (folder / subject).mkdir()
        for name in names:
            shutil.copy(PHOTOS / f"{name}.jpg", folder / subject)
    return folder


def test_photographs_become_a_list_with_a_report(
    operator: Operator, photos: Path, tmp_path: Path
) -> None:
    meta = tmp_path / "meta.csv"
    meta.write_text("subject,category,source\npoi-1,wanted,custody\npoi-2,missing,family\n")
    out, report = tmp_path / "list.bundle", tmp_path / "report.csv"
    built = operator.does("list", "build", photos, "--meta", meta, "--out", out, "--report", report)
    assert (built["photos"], built["accepted"], built["subjects_lost"]) == (3, 3, [])
    assert built["counts"]["category: wanted"] == 1
    assert len(report.read_text().splitlines()) == 4
    assert (tmp_path / "list.key").stat().st_mode & 0o777 == 0o600
    assert "0 of 1" in operator.fails(
        "deploy", "start", "--list", out, "--nodes", "*", "--until", "+1h", *ORDERED
    )
    operator.does("list", "sign", out, "--key", operator.fleet / "authorities" / "authority.key")
    shown = operator.does("list", "show", out)
    assert shown["signed_by"] == ["authority"]
    assert (shown["header"]["subjects"], shown["header"]["fleet"]) == (2, "harbour")
    operator.deploys(out)
    added = next(r for r in operator.does("record") if r["kind"] == "list-added")
    assert added["about"]["counts"]["source: family"] == 1
    assert len(added["about"]["head_sha256"]) == 64


def test_a_subject_with_no_good_photograph_fails_the_list_unless_it_may_be_left_out(
    operator: Operator, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "poi-3").mkdir()
    (folder / "poi-3" / "nobody.jpg").write_bytes(b"not a picture")
    (folder / "poi-1" / "broken.jpg").write_bytes(b"not a picture")
    out = tmp_path / "list.bundle"
    why = operator.fails("list", "build", folder, "--out", out)
    assert "nobody.jpg: not a picture that can be decoded" in why
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fleet", "photos"]
    built = operator.does("list", "build", folder, "--out", out, "--leave-out")
    assert (built["accepted"], built["subjects_lost"]) == (3, ["poi-3"])


def test_two_signatures_are_asked_for_where_the_fleet_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = tmp_path / "two"
    made = ["init", str(fleet), "--name", "harbour", "--signatures", "2"]
    assert main([*made, "--authority", "a", "--authority", "b"]) == 0
    capsys.readouterr()
    operator = Operator(fleet, capsys)
    path = write_list(tmp_path / "list", fleet="harbour")
    start = ("deploy", "start", "--list", path, "--nodes", "*", "--until", "+1h", *ORDERED)
    for have, name in ((1, "a"), (1, "a"), (2, "b")):
        assert "of 2" in operator.fails(*start)
        signed = operator.does("list", "sign", path, "--key", fleet / "authorities" / f"{name}.key")
        assert (signed["signatures"], signed["needed"]) == (have, 2)
    operator.does(*start)


@pytest.mark.parametrize("keep", [0, 10, 5000, 8300, -1])
def test_refuses_a_list_file_that_was_cut_off(
    operator: Operator, tmp_path: Path, keep: int
) -> None:
    path = operator.signed_list(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    start = ("deploy", "start", "--list", path, "--nodes", "*", "--until", "+1h", *ORDERED)
    assert str(path) in operator.fails(*start)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "damaged" in operator.fails(*start)
    with sqlite3.connect(operator.fleet / "fleet.db") as database:
        assert database.execute("SELECT count(*) FROM lists").fetchone() == (0,)
    database.close()


def test_refuses_a_list_of_another_fleet_key_or_authority(
    operator: Operator, tmp_path: Path
) -> None:
    start = ("--nodes", "*", "--until", "+1h", *ORDERED)
    own = operator.fleet / "authorities" / "authority.key"
    strange = write_list(tmp_path / "strange", fleet="elsewhere")
    operator.does("list", "sign", strange, "--key", own)
    assert "for fleet 'elsewhere'" in operator.fails("deploy", "start", "--list", strange, *start)
    one, two = (operator.signed_list(tmp_path, version=n) for n in (1, 2))
    key = two.with_suffix(".key")
    why = operator.fails("deploy", "start", "--list", one, "--key", key, *start)
    assert "not the key of market version 1" in why
    assert main(["init", str(tmp_path / "other")]) == 0
    forged = write_list(tmp_path / "forged", fleet="harbour")
    operator._capsys.readouterr()
    operator.does("list", "sign", forged, "--key", tmp_path / "other/authorities/authority.key")
    assert "0 of 1" in operator.fails("deploy", "start", "--list", forged, *start)


def test_refuses_two_deployments_at_one_node(operator: Operator, tmp_path: Path) -> None:
    operator.does("node", "add", "cam-1", "--out", tmp_path / "cam-1")
    operator.deploys(operator.signed_list(tmp_path))
    other = operator.signed_list(tmp_path, version=2, list_id="other")
    start = ("deploy", "start", "--list", other, "--until", "+1h", *ORDERED)
    assert "cam-1 is in deployment market" in operator.fails(*start, "--nodes", "cam-?")
    assert operator.does(*start, "--nodes", "door-*")["nodes"] == []


# The command line


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (("nodes",), 1, "fleet.toml"),
        (("list", "show", "/no/such.bundle"), 1, "No such file"),
        (("list", "sign", "/no/such.bundle", "--key", "/no/key"), 1, "/no/key"),
        (("list", "build", "/no/photos", "--out", "x"), 1, "fleet.toml"),
        (("deploy", "stop", "x"), 1, "fleet.toml"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int,
    reason: str,
) -> None:  # fmt: skip
    assert main([*words, "--fleet", str(tmp_path / "none")]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert reason in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("node", "add", "cam 1"),
        ("node", "add", "x" * 49),
        ("deploy", "start", "--list", "x", "--nodes", "a b", "--until", "+1h", *ORDERED),
        ("deploy", "start", "--list", "x", "--nodes", "a", "--until", "yesterday", *ORDERED),
        ("list", "build", "x", "--out", "y", "--false-alerts", "2"),
        ("frobnicate",),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    assert left.value.code == 2
    assert "usage: picketctl" in capsys.readouterr().err


def test_unknown_names_are_named(operator: Operator) -> None:
    assert "no node cam-9" in operator.fails("revoke", "cam-9")
    assert "no deployment x" in operator.fails("deploy", "stop", "x")
    assert "no deployment x" in operator.fails("deploy", "status", "x")
    assert "no deployment runs" in operator.fails("push", "--wait", 0)


def test_two_controllers_at_one_address_is_one_line(fleet: Path, serving: Serving) -> None:
    ended = picketctl("serve", "--listen", serving.url, fleet=fleet)
    assert ended.returncode == 1
    assert ended.stderr == f"picketctl: error: {serving.url} is in use\n"


COMMANDS = (
    "init", "node add", "nodes", "confirm", "revoke", "wipe", "list build", "list sign",
    "list show", "deploy start", "deploy stop", "deploy status", "push", "serve", "alerts",
    "record",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert f"example: picketctl {command} " in " ".join(said.split())
    assert "--json" in said


def test_alerts_are_followed_as_they_come(
    operator: Operator, serving: Serving, joined: list[Node]
) -> None:
    node = _node(operator, serving, joined)
    node.report(node.row(1))
    with (
        subprocess.Popen(
            [
                # Where a shell runs this suite in the background, all below it ignore Ctrl-C.
                *("env", "--default-signal=INT"),
                *(sys.executable, "-m", "appliance.controller", "alerts", "--follow", "--json"),
                *("--fleet", str(operator.fleet)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        ) as following,
        ExitStack() as stack,
    ):
        stack.callback(following.kill)  # or a failure in here would wait for it for ever
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["sequence"] == 1
        node.report(node.row(3))
        # Alerts and gaps are two questions to the store: either may be the first to see it.
        told: dict[str, dict[str, Any]] = {}
        for _ in range(2):
            line = json.loads(following.stdout.readline())
            told[line["event"]] = line
        assert told["alert"]["sequence"] == 3
        assert "gap" in told
        following.send_signal(2)
        assert following.stdout.read() == ""
        assert following.wait(LONG_S) == 130


def test_times_are_read_as_people_write_them() -> None:
    now = datetime(2026, 11, 25, 13, 0, tzinfo=UTC)
    local = now.astimezone()
    assert until("+90m", now) == now + timedelta(minutes=90)
    later = (local + timedelta(hours=1)).strftime("%H:%M")
    assert until(later, now) == now + timedelta(hours=1)
    earlier = (local - timedelta(hours=1)).strftime("%H:%M")
    assert until(earlier, now) == now + timedelta(hours=23)
    assert until("2026-12-24T18:00+00:00", now) == datetime(2026, 12, 24, 18, tzinfo=UTC)
