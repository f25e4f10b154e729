"""Joining, over real sockets: the node's keys are made on the node, and the token is used once."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from appliance import config
from appliance.config import Config
from appliance.controller.fleet import Fleet, Settings
from appliance.controller.identity import new_authority, pem
from appliance.errors import CardError, DeniedError, IdentityError, LinkError
from appliance.link import credentials, membership
from appliance.link.nng import NngLink
from appliance.link.rawrep import RawRep
from appliance.link.tls import ClientTls
from appliance.services.identity import load_identity
from appliance.services.join import join
from appliance.types import NodeState
from appliance.wire import (
    REQUEST_MAX_BYTES,
    Ack,
    Deny,
    Join,
    Joined,
    Request,
    Show,
    decode_request,
    encode,
)

NOW = datetime.now(UTC)
TOKEN = bytes(range(32))
LONG_S = 20.0
SHORT_S = 0.5


class Door:
    """A join port: whoever has the token is certified."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.socket = RawRep(
            "tls+tcp://127.0.0.1:0", max_bytes=REQUEST_MAX_BYTES, tls=fleet.join_tls()
        )
        self.url = self.socket.url
        self.asked: list[Join] = []
        self.lose_answers = False
        self.token = TOKEN
        self.born = NOW
        self.certify_for: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            received = self.socket.receive(0.05)
            if received is None:
                continue
            assert received.peer is None
            question = decode_request(received.message)
            assert isinstance(question, Join)
            self.asked.append(question)
            if not self.lose_answers:
                self.socket.send(received.reply_to, encode(self._answer(question)))

    def _answer(self, question: Join) -> Joined | Deny:
        if question.token != self.token:
            return Deny("no such token")
        csr, name = question.csr, question.node
        if self.certify_for is not None:
            name = self.certify_for
            csr = credentials.request_for(credentials.new_key(), name)
        return Joined(pem(self.fleet.issue(name, csr, self.born)))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.socket.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet.init(tmp_path_factory.mktemp("join") / "fleet", Settings(name="market"), now=NOW)


@pytest.fixture
def door(fleet: Fleet) -> Iterator[Door]:
    made = Door(fleet)
    yield made
    made.close()


@pytest.fixture
def node(fleet: Fleet, door: Door, tmp_path: Path) -> Config:
    """As `picketctl node add` leaves it, but for the address."""
    text = fleet.node_toml("cam-1").replace("tls+tcp://127.0.0.1:7442", door.url)
    (tmp_path / "node.toml").write_text(text)
    (tmp_path / "join.toml").write_text(fleet.join_toml(TOKEN))
    return config.load(tmp_path / "node.toml")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_node_makes_its_keys_is_certified_and_forgets_the_token(
    node: Config, door: Door, tmp_path: Path, fleet: Fleet
) -> None:
    with (tmp_path / "join.toml").open("rb") as still_open:
        assert join(node, tmp_path / "join.toml", timeout_s=LONG_S)
        assert not still_open.read().strip(b"\0"), "overwritten before it was removed"
    assert not (tmp_path / "join.toml").exists()
    state = tmp_path / "link"
    assert {path.name for path in state.iterdir()} == {
        *("tls.key", "tls.crt", "ca.crt", "join.used")
    }
    assert (mode(state), mode(state / "tls.key")) == (0o700, 0o600)
    assert mode(tmp_path / "watch.key") == 0o640
    tls = credentials.load(state, "controller")
    assert tls.certificate
    certificate = x509.load_pem_x509_certificate(tls.certificate)
    certificate.verify_directly_issued_by(fleet.authority.certificate)
    assert certificate.public_key() == credentials.load_key(state / "tls.key").public_key()
    watch_key = load_identity(tmp_path / "watch.key").public_key().public_bytes_raw()
    assert [asked.watch_key for asked in door.asked] == [watch_key]


def test_what_it_got_opens_the_other_port(node: Config, fleet: Fleet, tmp_path: Path) -> None:
    join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    port = RawRep("tls+tcp://127.0.0.1:0", max_bytes=REQUEST_MAX_BYTES, tls=fleet.server_tls())
    tls = credentials.load(tmp_path / "link", node.link.server_name)
    with NngLink(port.url, tls=tls) as link:
        asking = threading.Thread(target=lambda: answers.append(link.request(b"hello", LONG_S)))
        answers: list[bytes] = []
        asking.start()
        received = port.receive(LONG_S)
        assert received is not None
        assert received.peer == "cam-1"
        port.send(received.reply_to, b"welcome")
        asking.join()
    assert answers == [b"welcome"]
    port.close()


def test_a_node_that_has_joined_says_so_and_asks_nobody(
    node: Config, door: Door, tmp_path: Path, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    before = {path.name: path.read_bytes() for path in (tmp_path / "link").iterdir()}
    (tmp_path / "join.toml").write_text(fleet.join_toml(TOKEN))
    with caplog.at_level(logging.INFO):
        assert not join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    assert "cam-1 has joined already" in caplog.text
    assert not (tmp_path / "join.toml").exists()
    assert not join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    assert {path.name: path.read_bytes() for path in (tmp_path / "link").iterdir()} == before
    assert len(door.asked) == 1


def test_an_answer_that_is_lost_is_asked_for_again_by_the_same_request(
    node: Config, door: Door, tmp_path: Path
) -> None:
    door.lose_answers = True
    with pytest.raises(LinkError, match="no answer"):
        join(node, tmp_path / "join.toml", timeout_s=SHORT_S)
    assert (tmp_path / "join.toml").exists()
    door.lose_answers = False
    assert join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    first, second = door.asked[0], door.asked[-1]
    assert first == second


def test_a_node_that_is_invited_again_joins_again_with_a_new_key(
    node: Config, door: Door, tmp_path: Path, fleet: Fleet
) -> None:
    door.born = NOW - timedelta(days=31)
    join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    before = (tmp_path / "link" / "tls.key").read_bytes()
    door.born, door.token = NOW, bytes(reversed(TOKEN))
    (tmp_path / "join.toml").write_text(fleet.join_toml(door.token))
    assert join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    first, again = door.asked
    assert (tmp_path / "link" / "tls.key").read_bytes() != before
    assert again.csr != first.csr
    assert again.watch_key == first.watch_key
    assert credentials.life(tmp_path / "link")[1] > NOW
    tls = credentials.load(tmp_path / "link", "controller")
    assert tls.certificate
    asked_for = x509.load_pem_x509_csr(again.csr).public_key()
    assert x509.load_pem_x509_certificate(tls.certificate).public_key() == asked_for


def test_a_second_invitation_that_fails_leaves_the_node_as_it_was(
    node: Config, tmp_path: Path, fleet: Fleet
) -> None:
    join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    before = credentials.load(tmp_path / "link", "controller")
    (tmp_path / "join.toml").write_text(fleet.join_toml(os.urandom(32)))
    with pytest.raises(DeniedError, match="no such token"):
        join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    assert credentials.load(tmp_path / "link", "controller") == before


def test_interrupted_after_the_answer_it_is_asked_again_by_the_same_request(
    node: Config, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise CardError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(credentials, "swap", cut)
        with pytest.raises(CardError):
            join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    assert join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    assert door.asked[0] == door.asked[1]


def test_the_lamps_say_that_it_starts_for_as_long_as_it_tries(
    node: Config, door: Door, tmp_path: Path
) -> None:
    lamps_at = Path(node.local.run) / "indicator.ipc"
    shown: list[tuple[Request, int]] = []
    lamps_at.parent.mkdir(exist_ok=True)
    lamps = RawRep(f"ipc://{lamps_at}", max_bytes=REQUEST_MAX_BYTES)

    def indicator() -> None:
        for _ in range(2):
            received = lamps.receive(LONG_S)
            assert received is not None
            shown.append((decode_request(received.message), len(door.asked)))
            lamps.send(received.reply_to, encode(Ack()))

    thread = threading.Thread(target=indicator)
    thread.start()
    try:
        door.lose_answers = True
        with pytest.raises(LinkError):
            join(node, tmp_path / "join.toml", timeout_s=SHORT_S)
        door.lose_answers = False
        assert join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    finally:
        thread.join()
        lamps.close()
    starting = Show(NodeState.STARTING, camera_on=False)
    assert shown == [(starting, 0), (starting, 1)], "at every try, before the controller is asked"


def test_a_no_leaves_the_token_where_it_is(node: Config, tmp_path: Path, fleet: Fleet) -> None:
    (tmp_path / "join.toml").write_text(fleet.join_toml(os.urandom(32)))
    with pytest.raises(DeniedError, match="no such token"):
        join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    assert (tmp_path / "join.toml").exists()
    assert not membership.joined(tmp_path / "link")


def test_a_controller_of_another_authority_never_sees_the_token(
    node: Config, door: Door, tmp_path: Path
) -> None:
    other = pem(new_authority("market", NOW).certificate).decode()
    (tmp_path / "join.toml").write_text(f'token = "{TOKEN.hex()}"\nca = """\n{other}"""\n')
    with pytest.raises(LinkError, match="TLS: "):
        join(node, tmp_path / "join.toml", timeout_s=SHORT_S)
    assert door.asked == []
    assert (tmp_path / "join.toml").exists()


def test_a_controller_with_another_name_never_sees_the_token(
    fleet: Fleet, door: Door, tmp_path: Path
) -> None:
    text = fleet.node_toml("cam-1").replace("tls+tcp://127.0.0.1:7442", door.url)
    (tmp_path / "node.toml").write_text(text.replace('"controller"', '"impostor"'))
    (tmp_path / "join.toml").write_text(fleet.join_toml(TOKEN))
    with pytest.raises(LinkError, match="TLS: "):
        join(config.load(tmp_path / "node.toml"), tmp_path / "join.toml", timeout_s=SHORT_S)
    assert door.asked == []


@pytest.mark.parametrize("name", ["cam-1", "cam-2"])
def test_a_certificate_for_somebody_else_is_not_kept(
    node: Config, door: Door, tmp_path: Path, name: str
) -> None:
    door.certify_for = name
    with pytest.raises(IdentityError, match=r"for another key|not for cam-1"):
        join(node, tmp_path / "join.toml", timeout_s=LONG_S)
    assert not membership.joined(tmp_path / "link")
    assert (tmp_path / "join.toml").exists()


@pytest.mark.parametrize(
    "content", ["", "token = 1", 'token = "00"\nca = "x"', "\0\xff", 'ca = "x"\nmore = 1']
)
def test_a_file_that_is_no_invitation_is_one_line(
    node: Config, tmp_path: Path, content: str
) -> None:
    (tmp_path / "join.toml").write_text(content)
    with pytest.raises(IdentityError, match="is no invitation") as refused:
        join(node, tmp_path / "join.toml", timeout_s=SHORT_S)
    assert "\n" not in str(refused.value)
    (tmp_path / "join.toml").unlink()
    with pytest.raises(IdentityError, match="missing: `picketctl node add` makes it"):
        join(node, tmp_path / "join.toml", timeout_s=SHORT_S)


def test_the_join_port_takes_whoever_comes_with_a_certificate_too(fleet: Fleet, door: Door) -> None:
    key = credentials.new_key()
    issued = fleet.issue("cam-9", credentials.request_for(key, "cam-9"), NOW)
    tls = ClientTls(
        pem(fleet.authority.certificate), "controller", pem(issued), credentials.key_pem(key)
    )
    question = Join("cam-9", TOKEN, credentials.request_for(key, "cam-9"), bytes(32))
    with NngLink(door.url, tls=tls) as link:
        assert link.request(encode(question), LONG_S)
