"""The link service as it runs: real sockets, TLS, a card; a controller of a few lines."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import stat
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomli_w

from appliance import config as configuration
from appliance.alerts.durable import SqliteOutbox
from appliance.config import Config
from appliance.controller.fleet import Fleet, Settings
from appliance.controller.identity import pem
from appliance.errors import DeniedError, LinkError
from appliance.link import credentials
from appliance.link.nng import NngLink
from appliance.link.question import ask
from appliance.link.rawrep import RawRep
from appliance.services.link import _ANSWERED, LinkService
from appliance.system.memory import rss_bytes
from appliance.wire import (
    GRANT_KEY_BYTES,
    REQUEST_MAX_BYTES,
    Ack,
    Answer,
    Fetch,
    Hello,
    Offer,
    Piece,
    Poll,
    Renew,
    Renewed,
    Report,
    Request,
    Row,
    Welcome,
    decode_request,
    encode,
)
from tests.path.heads import a_head

BOOT = b"b" * 16
PIECES = (b"first" * 100, b"second")
HELLO = Hello("cam-1", BOOT, bytes(GRANT_KEY_BYTES), "m@1", bytes(64))
LONG_S = 20.0
"""Never waited for: what is to come comes at once."""


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline_s, what
        threading.Event().wait(0.01)


class Controller:
    """Stores what it is sent; a poll is answered with an offer or parked for ever."""

    def __init__(self, fleet: Fleet, url: str = "tls+tcp://127.0.0.1:0") -> None:
        self.fleet = fleet
        self.socket = RawRep(url, max_bytes=REQUEST_MAX_BYTES, tls=fleet.server_tls())
        self.url = self.socket.url
        self.stored: dict[tuple[bytes, int], bytes] = {}
        self.asked: list[Request] = []
        self.offer: Offer | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            received = self.socket.receive(0.05)
            if received is not None:
                assert received.peer == "cam-1"
                request = decode_request(received.message)
                self.asked.append(request)
                answer = self._answer(request)
                if answer is not None:
                    self.socket.send(received.reply_to, encode(answer))

    def _answer(self, request: Request) -> Answer | None:
        match request:
            case Hello():
                return Welcome(int(time.time() * 1000))
            case Poll():
                return self.offer
            case Fetch():
                return Piece(request.index, PIECES[request.index])
            case Report():
                self.stored.update({(row.boot, row.sequence): row.sealed for row in request.rows})
                return Ack()
            case Renew():
                certificate = self.fleet.issue(request.node, request.csr, datetime.now(UTC))
                return Renewed(pem(certificate))
            case _:
                return Ack()

    def count(self, kind: type[Request]) -> int:
        return sum(isinstance(request, kind) for request in self.asked)

    def kill(self) -> None:
        self._stop.set()
        self.socket.close()
        self._thread.join()


class Node:
    """A node that has joined; its link service runs inside `with node.service()`."""

    def __init__(self, fleet: Fleet, folder: Path, url: str, *, age_days: int = 0) -> None:
        self.folder = folder
        document = tomllib.loads(fleet.node_toml("cam-1"))
        document["link"] |= {"controllers": [url], "answer_timeout_s": 2.0, "outbox": 1000}
        document["local"] = {"run": "run"}
        document["camera"] = {"source": "scene", "path": "none.toml"}
        (folder / "run").mkdir()
        (folder / "link").mkdir()
        (folder / "node.toml").write_text(tomli_w.dumps(document))
        self.config: Config = configuration.load(folder / "node.toml")
        key = credentials.new_key()
        born = datetime.now(UTC) - timedelta(days=age_days)
        issued = fleet.issue("cam-1", credentials.request_for(key, "cam-1"), born)
        state = folder / "link"
        credentials.keep_authority(state, fleet.server_tls().ca)
        credentials.swap(state, key, pem(issued))

    @contextmanager
    def service(self) -> Iterator[LinkService]:
        stop = threading.Event()
        with ExitStack() as stack:
            service = LinkService(self.config, stack, stop)
            thread = threading.Thread(target=service.run)
            thread.start()
            try:
                yield service
            finally:
                stop.set()
                thread.join(LONG_S)
                assert not thread.is_alive()

    @property
    def ipc(self) -> str:
        return f"ipc://{self.folder}/run/link.ipc"

    @contextmanager
    def watch(self) -> Iterator[NngLink]:
        with NngLink(self.ipc, redial_s=(0.01, 0.05)) as link:
            yield link


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("fleet") / "fleet"
    return Fleet.init(folder, Settings(name="town"), now=datetime.now(UTC))


@pytest.fixture
def controller(fleet: Fleet) -> Iterator[Controller]:
    made = Controller(fleet)
    yield made
    made.kill()


@pytest.fixture
def node(fleet: Fleet, controller: Controller, tmp_path: Path) -> Node:
    return Node(fleet, tmp_path, controller.url)


def rows(*numbers: int) -> tuple[Row, ...]:
    return tuple(Row(BOOT, n, b"sealed %d" % n) for n in numbers)


def poll(list_id: str = "", version: int = 0, wait_ms: int = 60_000) -> Poll:
    return Poll("cam-1", BOOT, os.urandom(16), list_id, version, "", 0, wait_ms)


def test_alerts_are_kept_without_a_controller_and_delivered_when_there_is_one(
    fleet: Fleet, tmp_path: Path
) -> None:
    away = Controller(fleet)
    away.kill()
    node = Node(fleet, tmp_path, away.url)
    with node.service(), node.watch() as link:
        begun_s = time.monotonic()
        ask(link, Report("cam-1", rows(1, 2, 3)), Ack, LONG_S)
        for question, expected in (
            (HELLO, Welcome),
            (poll(), Offer),
            (Fetch("cam-1", "r", 1, 0), Piece),
        ):
            with pytest.raises(DeniedError, match="controller unreachable"):
                ask(link, question, expected, LONG_S)
        assert time.monotonic() - begun_s < 10.0
    # Started again, without a watch service: the card has them.
    back = Controller(fleet, away.url)
    with node.service() as service:
        eventually(lambda: len(back.stored) == 3, "three alerts at the controller")
        eventually(lambda: service._outbox.depth == 0, "an empty outbox")
    back.kill()
    assert back.stored == {(row.boot, row.sequence): row.sealed for row in rows(1, 2, 3)}


def test_systemd_is_told_once_a_controller_has_answered(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an update that came from a controller is kept by."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(LONG_S)

        def next_status() -> str:
            while not (said := systemd.recv(1000).decode()).startswith("STATUS="):
                pass
            return said

        with node.service(), node.watch() as link:
            assert next_status() == f"STATUS={_ANSWERED[1]}"
            ask(link, HELLO, Welcome, LONG_S)
            assert next_status() == f"STATUS={_ANSWERED[0]}"


def test_a_push_reaches_a_parked_poll_and_each_piece_crosses_the_network_once(
    node: Node, controller: Controller
) -> None:
    digests = b"".join(hashlib.sha256(piece).digest() for piece in PIECES)
    controller.offer = Offer(b"stamp", a_head("red", 7, digests), digests, b"grant")
    with node.service(), node.watch() as link:
        assert ask(link, HELLO, Welcome, LONG_S).floors == ()
        assert ask(link, poll(), Offer, LONG_S) == controller.offer
        for _ in range(2):
            for index, piece in enumerate(PIECES):
                asked = Fetch("cam-1", "red", 7, index)
                assert ask(link, asked, Piece, LONG_S) == Piece(index, piece)
        assert controller.count(Fetch) == 2
        ask(link, poll("red", 7), Offer, LONG_S)
        assert ask(link, HELLO, Welcome, LONG_S).floors == (("red", 7),)
    with node.service(), node.watch() as link:
        assert ask(link, HELLO, Welcome, LONG_S).floors == (("red", 7),)


def test_parked_polls_hinder_neither_reports_nor_the_end(
    node: Node, controller: Controller
) -> None:
    with node.service(), node.watch() as link:
        parked = [
            threading.Thread(target=_ask_in_vain, args=(link, poll()), daemon=True)
            for _ in range(2)
        ]
        for thread in parked:
            thread.start()
        eventually(lambda: controller.count(Poll) == 2, "two parked polls")
        ask(link, Report("cam-1", rows(1)), Ack, LONG_S)
        ask(link, HELLO, Welcome, LONG_S)
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < 8.0


def _ask_in_vain(link: NngLink, question: Request) -> None:
    with pytest.raises(LinkError):
        ask(link, question, Offer, 60.0)


def test_the_socket_is_for_its_group_and_there_is_one_service_per_node(node: Node) -> None:
    with node.service():
        mode = (node.folder / "run" / "link.ipc").stat().st_mode
        assert stat.S_IMODE(mode) == 0o660
        with ExitStack() as stack, pytest.raises(LinkError, match="is in use"):
            LinkService(node.config, stack, threading.Event())


def test_a_socket_left_behind_by_a_killed_service_is_taken_over(node: Node) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(node.folder / "run" / "link.ipc"))
    with node.service(), node.watch() as link:
        ask(link, Report("cam-1", rows(1)), Ack, LONG_S)


def test_a_certificate_in_the_last_third_of_its_life_is_renewed_and_used(
    fleet: Fleet, controller: Controller, tmp_path: Path
) -> None:
    node = Node(fleet, tmp_path, controller.url, age_days=25)
    before = credentials.life(tmp_path / "link")[1]
    with node.service(), node.watch() as link:
        ask(link, HELLO, Welcome, LONG_S)  # brings the time, which the machine may not have
        eventually(lambda: controller.count(Renew) == 1, "a renewal")
        eventually(lambda: credentials.life(tmp_path / "link")[1] > before, "a new certificate")
        ask(link, Report("cam-1", rows(1)), Ack, LONG_S)
        eventually(lambda: len(controller.stored) == 1, "an alert over the new certificate")


def test_hostile_bytes_on_its_socket_do_no_harm(node: Node, controller: Controller) -> None:
    rng, path = random.Random(5), str(node.folder / "run" / "link.ipc")  # noqa: S311 - bytes
    hello = b"\x00SP\x00\x00\x30\x00\x00"  # what a Req socket begins with (nng's SP protocol)

    def send(*parts: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(LONG_S)
            eventually(lambda: stranger.connect_ex(path) == 0, "a place in the backlog")
            try:
                for part in parts:
                    stranger.sendall(part)
                if parts[0] == hello:  # whoever leaves at once is not listened to
                    while len(stranger.recv(4096)) in range(1, 9):
                        pass  # what every Rep socket begins with; then an answer, or the end
            except OSError:
                pass  # turned away in the middle, as it should be

    def framed(body: bytes, claimed: int | None = None) -> bytes:
        length = len(body) if claimed is None else claimed
        return b"\x01" + length.to_bytes(8) + body

    with node.service() as service, node.watch() as link:
        ask(link, Report("cam-1", rows(1)), Ack, LONG_S)
        before = rss_bytes()
        good = encode(Report("cam-1", rows(2)))
        for _ in range(30):
            send(rng.randbytes(rng.randrange(200)))
            send(hello, framed(b"\x80\0\0\1" + rng.randbytes(rng.randrange(2000))))
            flipped = bytearray(good)
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            send(hello, framed(b"\x80\0\0\1" + bytes(flipped)))
            send(hello, framed(b"\x80\0\0\1" + good[: rng.randrange(len(good))]))
            send(hello, framed(b"", claimed=2 ** rng.randrange(17, 64) - 1), b"\xff" * 1000)
        send(hello, framed(b"\x80\0\0\1" + bytes(REQUEST_MAX_BYTES + 1)))
        ask(link, Report("cam-1", rows(3)), Ack, LONG_S)
        assert rss_bytes() - before < 30 * 2**20
        assert service._relay.hostile > 30
        eventually(lambda: (BOOT, 3) in controller.stored, "the honest alert")


def test_questions_over_what_it_has_threads_for_are_turned_away_at_once(node: Node) -> None:
    with node.service(), ExitStack() as stack:
        links = [stack.enter_context(NngLink(node.ipc, concurrent=8)) for _ in range(3)]
        denied = threading.Semaphore(0)

        def ask_for_long(link: NngLink) -> None:
            try:
                ask(link, poll(), Offer, 60.0)
            except DeniedError as e:
                if "other questions are under way" in str(e):
                    denied.release()
            except LinkError:
                pass  # the end of the test

        for link in links:
            for _ in range(8):
                threading.Thread(target=ask_for_long, args=(link,), daemon=True).start()
        for _ in range(24 - 3 - 8):
            assert denied.acquire(timeout=LONG_S)
        with node.watch() as other:
            ask(other, Report("cam-1", rows(1)), Ack, LONG_S)


def test_what_was_answered_is_on_the_card(node: Node, controller: Controller) -> None:
    controller.kill()
    with node.service(), node.watch() as link:
        for number in range(1, 21):
            ask(link, Report("cam-1", rows(number)), Ack, LONG_S)
    outbox = SqliteOutbox(node.folder / "link" / "outbox.db", capacity=1000)
    assert outbox.peek(100) == rows(*range(1, 21))
    outbox.close()
