"""The TLS port, over real sockets: who is let in, who is not, and what strangers can do to it."""

from __future__ import annotations

import logging
import os
import random
import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from appliance.controller import identity
from appliance.controller.fleet import Fleet, Settings
from appliance.errors import LinkError
from appliance.link import credentials, listener, overhear, rawrep
from appliance.link.nng import NngLink
from appliance.link.peers import PIPES_PER_NAME, Peers
from appliance.link.rawrep import RawRep, Received
from appliance.link.tls import ClientTls, ServerTls
from appliance.system.memory import rss_bytes

NOW = datetime.now(UTC)
LONG_S = 20.0
"""Never waited for: an answer that is to come comes at once."""
SHORT_S = 0.4
"""Always waited for: there is no answer."""
REQUEST_MAX = 4096
REDIAL_S = (0.05, 0.2)
MIB = 2**20


class Port:
    """A controller that answers each question with the asker's name, and counts."""

    def __init__(self, tls: ServerTls, *, idle_s: float = 300.0) -> None:
        self.admitted: Callable[[str], bool] = lambda _: True
        self.socket = RawRep(
            "tls+tcp://127.0.0.1:0",
            max_bytes=REQUEST_MAX,
            tls=tls,
            admit=self._admits,
            idle_s=idle_s,
        )
        self.url = self.socket.url
        self.received: list[Received] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def where(self) -> tuple[str, int]:
        split = urlsplit(self.url)
        assert split.hostname
        assert split.port
        return split.hostname, split.port

    def _admits(self, name: str) -> bool:
        return self.admitted(name)

    def _serve(self) -> None:
        while not self._stop.is_set():
            received = self.socket.receive(0.05)
            if received is not None:
                self.received.append(received)
                self.socket.send(received.reply_to, str(received.peer).encode())

    def close(self) -> None:
        self._stop.set()
        self.socket.close()
        self._thread.join()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet.init(tmp_path_factory.mktemp("tls") / "fleet", Settings(name="market"), now=NOW)


@pytest.fixture
def port(fleet: Fleet) -> Iterator[Port]:
    made = Port(fleet.server_tls())
    yield made
    made.close()


def node_tls(
    fleet: Fleet,
    name: str = "cam-1",
    *,
    authority: identity.Authority | None = None,
    born: datetime = NOW,
    life: timedelta = timedelta(days=30),
) -> ClientTls:
    key = credentials.new_key()
    request = credentials.request_for(key, name)
    issued = identity.issue_node(authority or fleet.authority, name, request, born, life)
    return ClientTls(
        ca=identity.pem(fleet.authority.certificate),
        server_name="controller",
        certificate=identity.pem(issued),
        key=credentials.key_pem(key),
    )


def serial(tls: ClientTls) -> int:
    assert tls.certificate is not None
    return credentials.x509_certificate(tls.certificate).serial_number


def dial(port: Port, tls: ClientTls) -> NngLink:
    return NngLink(port.url, tls=tls, redial_s=REDIAL_S)


def eventually(true: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.005)  # between two looks, not for something to happen


def files() -> int:
    return listener.open_files(0)


def test_a_node_of_the_fleet_is_known_by_its_name(fleet: Fleet, port: Port) -> None:
    with dial(port, node_tls(fleet)) as one, dial(port, node_tls(fleet, "cam-2")) as two:
        assert one.request(b"who am I", LONG_S) == b"cam-1"
        assert two.request(b"and I", LONG_S) == b"cam-2"
        assert one.request(b"still", LONG_S) == b"cam-1"
    assert [received.peer for received in port.received] == ["cam-1", "cam-2", "cam-1"]


def strangers(fleet: Fleet) -> dict[str, ClientTls]:
    good = node_tls(fleet)
    server = fleet.server_tls()
    long_ago, one_day = NOW - timedelta(days=3), timedelta(days=1)
    return {
        "no certificate": replace(good, certificate=None, key=None),
        "another authority": node_tls(fleet, authority=identity.new_authority("market", NOW)),
        "expired": node_tls(fleet, born=long_ago, life=one_day),
        "not yet valid": node_tls(fleet, born=NOW + timedelta(days=9)),
        "the controller's own": replace(good, certificate=server.certificate, key=server.key),
        "wrong server name": replace(good, server_name="other"),
        "believes another authority": replace(
            good, ca=identity.pem(identity.new_authority("market", NOW).certificate)
        ),
    }


@pytest.mark.parametrize(
    "who",
    [
        "no certificate",
        "another authority",
        "expired",
        "not yet valid",
        "the controller's own",
        "wrong server name",
        "believes another authority",
    ],
)
def test_a_stranger_is_refused_counted_and_told_once_and_nothing_is_delivered(
    fleet: Fleet, port: Port, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    tally = overhear.overhear()
    tally.forget()
    before = tally.handshakes
    with caplog.at_level(logging.WARNING), dial(port, strangers(fleet)[who]) as stranger:
        with pytest.raises(LinkError, match=r"no connection \(TLS: .+\) within"):
            stranger.request(b"let me in", SHORT_S)
        eventually(lambda: tally.handshakes >= before + 4, "both ends' handshakes, twice")
    assert port.received == []
    told = [r.getMessage() for r in caplog.records if r.name == overhear.__name__]
    assert told
    assert len(told) == len(set(told)) == len({line.partition("(")[0] for line in told})
    with dial(port, node_tls(fleet)) as honest:
        assert honest.request(b"hello", LONG_S) == b"cam-1"


def test_a_nodes_certificate_does_not_make_a_controller(fleet: Fleet) -> None:
    node = node_tls(fleet, "controller")
    assert node.certificate
    assert node.key
    impostor = Port(replace(fleet.server_tls(), certificate=node.certificate, key=node.key))
    with dial(impostor, node_tls(fleet)) as honest, pytest.raises(LinkError, match="TLS: "):
        honest.request(b"my alerts", SHORT_S)
    assert impostor.received == []
    impostor.close()


def test_tls_1_3_alone_is_refused_and_who_speaks_both_gets_1_2(
    fleet: Fleet, port: Port, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=identity.pem(fleet.authority.certificate).decode())
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with (
        socket.create_connection(port.where, 5) as raw,
        pytest.raises(OSError, match=r"alert|EOF|reset"),
    ):
        context.wrap_socket(raw)
    with handshaken(fleet, port, node_tls(fleet), tmp_path) as both:
        assert both.version() == "TLSv1.2"


def test_plain_tcp_against_tls_and_the_reverse_reach_nobody(fleet: Fleet, port: Port) -> None:
    clear_url = port.url.removeprefix("tls+")
    with NngLink(clear_url, redial_s=REDIAL_S) as plain, pytest.raises(LinkError):
        plain.request(b"in the clear", SHORT_S)
    assert port.received == []
    clear = RawRep("tcp://127.0.0.1:0", max_bytes=REQUEST_MAX)
    url = f"tls+{clear.url}"
    with NngLink(url, tls=node_tls(fleet), redial_s=REDIAL_S) as link, pytest.raises(LinkError):
        link.request(b"secret", SHORT_S)
    assert clear.receive(0.0) is None
    clear.close()


def test_a_node_that_is_not_admitted_delivers_nothing_and_one_that_is_does(
    fleet: Fleet, port: Port
) -> None:
    port.admitted = lambda name: name != "cam-1"
    with dial(port, node_tls(fleet)) as barred, dial(port, node_tls(fleet, "cam-2")) as admitted:
        with pytest.raises(LinkError):
            barred.request(b"hello", SHORT_S)
        assert admitted.request(b"hello", LONG_S) == b"cam-2"
    assert port.socket.refused >= 1
    assert {received.peer for received in port.received} == {"cam-2"}


def test_admission_is_asked_for_every_question_not_for_every_connection(
    fleet: Fleet, port: Port
) -> None:
    with dial(port, node_tls(fleet)) as link:
        assert link.request(b"hello", LONG_S) == b"cam-1"
        port.admitted = lambda _: False
        with pytest.raises(LinkError):
            link.request(b"again", SHORT_S)
    assert len(port.received) == 1


def test_an_admission_that_fails_lets_nobody_in(
    fleet: Fleet, port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: str) -> bool:
        raise RuntimeError("a bug of ours")

    port.admitted = broken
    with dial(port, node_tls(fleet)) as link, pytest.raises(LinkError):
        link.request(b"hello", SHORT_S)
    assert port.received == []
    assert "refused by a fault of ours" in caplog.text
    caplog.clear()


def test_a_revoked_node_is_cut_off_at_once_and_the_others_stay(fleet: Fleet, port: Port) -> None:
    revoked, other = node_tls(fleet, "cam-7"), node_tls(fleet, "cam-8")
    with dial(port, revoked) as cut_off, dial(port, other) as stays:
        assert cut_off.request(b"hello", LONG_S) == b"cam-7"
        assert stays.request(b"hello", LONG_S) == b"cam-8"
        fleet.revoke([serial(revoked)], NOW)
        port.socket.renew(fleet.server_tls())
        assert port.socket.close_peer("cam-7") == 1
        with pytest.raises(LinkError, match="TLS: "):
            cut_off.request(b"again", SHORT_S)
        assert stays.request(b"again", LONG_S) == b"cam-8"
    # The very first connection after the change met it too.
    assert [received.peer for received in port.received].count("cam-7") == 1


def test_the_first_connection_after_a_change_meets_the_new_list(fleet: Fleet, port: Port) -> None:
    revoked = node_tls(fleet, "cam-9")
    fleet.revoke([serial(revoked)], NOW)
    port.socket.renew(fleet.server_tls())
    with dial(port, revoked) as late, pytest.raises(LinkError):
        late.request(b"hello", SHORT_S)
    assert port.received == []


def test_certificates_that_cannot_be_used_change_nothing(fleet: Fleet, port: Port) -> None:
    tls = fleet.server_tls()
    for broken in (
        replace(tls, certificate=b"nonsense"),
        replace(tls, key=credentials.key_pem(credentials.new_key())),
        replace(tls, crl=b"nonsense"),
        replace(tls, ca=b""),
        replace(tls, mutual=False),
    ):
        with pytest.raises(LinkError):
            port.socket.renew(broken)
    with dial(port, node_tls(fleet)) as link:
        assert link.request(b"hello", LONG_S) == b"cam-1"
        with pytest.raises(LinkError):
            link.use(replace(node_tls(fleet), certificate=b"nonsense"))
        with pytest.raises(LinkError):
            link.use(replace(node_tls(fleet), server_name=""))
        assert link.request(b"hello", LONG_S) == b"cam-1"


def test_a_renewed_certificate_is_shown_from_then_on(fleet: Fleet, port: Port) -> None:
    old = node_tls(fleet, "cam-1")
    with dial(port, old) as link:
        assert link.request(b"hello", LONG_S) == b"cam-1"
        link.use(node_tls(fleet, "cam-1"))
        fleet.revoke([serial(old)], NOW)
        port.socket.renew(fleet.server_tls())
        assert link.request(b"hello", LONG_S) == b"cam-1"


def test_a_connection_that_asks_nothing_for_long_is_closed_and_comes_back(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rawrep, "_SWEEP_S", 0.0)
    port = Port(fleet.server_tls(), idle_s=0.05)
    with dial(port, node_tls(fleet)) as link:
        assert link.request(b"hello", LONG_S) == b"cam-1"
        eventually(lambda: not link.connected, "closed")
        assert link.request(b"hello", LONG_S) == b"cam-1"
    port.close()


def test_one_name_has_few_connections_and_the_newest_are_kept(fleet: Fleet, port: Port) -> None:
    tls = node_tls(fleet)
    with ExitStack() as stack:
        for _ in range(PIPES_PER_NAME + 2):
            link = stack.enter_context(NngLink(port.url, tls=tls, redial_s=(60.0, 60.0)))
            assert link.request(b"hello", LONG_S) == b"cam-1"
        eventually(lambda: len(port.socket._peers) == PIPES_PER_NAME, "the oldest closed")
        assert link.request(b"the newest", LONG_S) == b"cam-1"


def handshaken(fleet: Fleet, port: Port, tls: ClientTls, folder: Path) -> ssl.SSLSocket:
    """An authenticated connection of somebody who then speaks no NNG."""
    assert tls.certificate
    assert tls.key
    (folder / "pair.pem").write_bytes(tls.certificate + tls.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=identity.pem(fleet.authority.certificate).decode())
    context.load_cert_chain(folder / "pair.pem")
    context.check_hostname = False
    return context.wrap_socket(socket.create_connection(port.where, 5))


@contextmanager
def few_files(most: int) -> Iterator[None]:
    """As few as that may be open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


SP_HEADER = b"\0SP\0" + struct.pack(">H", 0x30) + b"\0\0"
"""What a Req socket sends first."""


def test_pipes_that_broke_at_the_wrong_moment_are_given_back(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rawrep, "_SWEEP_S", 0.0)
    port = Port(fleet.server_tls(), idle_s=0.5)
    before = files()
    for i in range(40):
        rude = handshaken(fleet, port, node_tls(fleet, f"rude-{i}"), tmp_path)
        rude.sendall(SP_HEADER)
        if i % 2:  # a reset, rather than an orderly end
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        rude.close()
    eventually(lambda: len(port.socket._peers) == 0, "pipes given back")
    # Of a few NNG keeps the file even then: they count as strangers, and are shed like those.
    monkeypatch.setattr(listener, "_SHED_S", 0.0)
    with few_files(2 * before):
        eventually(lambda: files() <= before, "files given back")
    with dial(port, node_tls(fleet)) as honest:
        assert honest.request(b"hello", LONG_S) == b"cam-1"
    port.close()


def hostile(rng: random.Random) -> bytes:
    hello = b"\x16\x03\x01" + struct.pack(">H", 200) + b"\x01\0\0\xc4\x03\x03" + rng.randbytes(196)
    damaged = bytearray(hello)
    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return rng.choice(
        [
            rng.randbytes(rng.randrange(1, 3000)),
            bytes(damaged),
            hello[: rng.randrange(1, len(hello))],
            b"\x16\x03\x03\xff\xff" + rng.randbytes(500),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            SP_HEADER + struct.pack(">Q", 2**63) + rng.randbytes(50),
            b"",
        ]
    )


@pytest.mark.slow
def test_hostile_bytes_on_the_port_leave_honest_nodes_served_and_memory_bounded(
    fleet: Fleet, port: Port
) -> None:
    rng = random.Random(4)  # noqa: S311 - a fuzzer's
    with dial(port, node_tls(fleet)) as honest:
        assert honest.request(b"before", LONG_S) == b"cam-1"
        rss, files_before = [], 0
        for round_ in range(8):
            if round_ == 1:
                files_before = files()
            for _ in range(100):
                with socket.create_connection(port.where, 5) as rude, suppress(OSError):
                    rude.sendall(hostile(rng))
            assert honest.request(b"during", LONG_S) == b"cam-1"
            rss.append(rss_bytes())
        with dial(port, node_tls(fleet, "cam-2")) as new:
            assert new.request(b"a new node", LONG_S) == b"cam-2"
        eventually(lambda: files() <= files_before + 8, "files given back")
        # A leak grows in every round, by 33 KiB a connection; the allocator's caches do not.
        assert min(after - before for before, after in pairwise(rss)) < 2 * MIB
    assert {received.message for received in port.received} == {
        *(b"before", b"during", b"a new node")
    }


@pytest.mark.slow
def test_hostile_frames_of_an_authenticated_peer_reach_nobody(
    fleet: Fleet, port: Port, tmp_path: Path
) -> None:
    rng = random.Random(5)  # noqa: S311 - a fuzzer's
    tls = node_tls(fleet, "rude")
    with dial(port, node_tls(fleet)) as honest:
        assert honest.request(b"before", LONG_S) == b"cam-1"
        rss_before = rss_bytes()
        for _ in range(40):
            with handshaken(fleet, port, tls, tmp_path) as rude, suppress(OSError):
                rude.sendall(SP_HEADER)
                length = rng.choice([2**63, 2**40, REQUEST_MAX * 2, 3, 0])
                rude.sendall(struct.pack(">Q", length) + rng.randbytes(min(length, 64)))
        assert honest.request(b"after", LONG_S) == b"cam-1"
        assert rss_bytes() < rss_before + 8 * MIB
    assert all(len(received.message) <= REQUEST_MAX for received in port.received)


def test_when_strangers_hold_half_of_all_files_they_are_shed(
    fleet: Fleet, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rawrep, "_SWEEP_S", 0.0)
    with dial(port, node_tls(fleet)) as honest, ExitStack() as stack:
        assert honest.request(b"before", LONG_S) == b"cam-1"
        few, idle = files(), 50
        for _ in range(idle):
            stack.enter_context(socket.create_connection(port.where, 5))
        # This process holds both ends of every stranger's connection.
        eventually(lambda: files() >= few + 2 * idle, "strangers' files held")
        with few_files(2 * (few + 2 * idle) - 20):
            monkeypatch.setattr(listener, "_SHED_S", 0.0)
            eventually(lambda: files() <= few + idle + 2, "strangers' files given back")
        assert honest.request(b"after", LONG_S) == b"cam-1"


def test_a_handshake_that_freezes_makes_way_for_the_next_controller(
    fleet: Fleet, port: Port
) -> None:
    # NNG itself would hang in there for ever, and never dial again (D2).
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        urls = (f"tls+tcp://127.0.0.1:{frozen.getsockname()[1]}", port.url)
        with NngLink(*urls, tls=node_tls(fleet), redial_s=REDIAL_S, pipeless_s=0.0) as link:
            with pytest.raises(LinkError, match="no connection"):
                link.request(b"hello", SHORT_S)
            assert link.request(b"hello", LONG_S) == b"cam-1"


def test_many_handshakes_in_a_row_all_succeed(fleet: Fleet, port: Port) -> None:
    tally = overhear.overhear()
    before = tally.handshakes
    tls = [node_tls(fleet, f"cam-{n}") for n in range(8)]
    for round_ in range(8):
        with ExitStack() as stack:
            links = [stack.enter_context(dial(port, one)) for one in tls]
            for n, link in enumerate(links):
                assert link.request(b"%d" % round_, LONG_S) == f"cam-{n}".encode()
    assert tally.handshakes == before


def test_a_port_that_was_closed_can_be_asked_and_says_nothing(fleet: Fleet) -> None:
    port = RawRep("tls+tcp://127.0.0.1:0", max_bytes=REQUEST_MAX, tls=fleet.server_tls())
    port.close()
    for _ in range(1000):
        assert port.receive(LONG_S) is None
    port.send(b"12345678", b"too late")


def test_more_files_are_allowed_up_to_what_the_machine_grants(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        assert listener.allow_files(600) == 600
        assert listener.allow_files(10) == 600
        if before[1] != resource.RLIM_INFINITY:
            assert listener.allow_files(before[1] + 1) == before[1]
            assert "files may be open" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_peers_count_each_connection_once() -> None:
    peers: Peers[str] = Peers()
    for number in range(PIPES_PER_NAME):
        assert peers.enter(number, f"pipe {number}", "cam-1", float(number)) == []
    assert peers.enter(9, "pipe 9", "cam-1", 9.0) == ["pipe 0"]
    assert peers.enter(10, "pipe 10", None, 10.0) == []
    assert peers.hear(10, 11.0) == (None,)
    assert peers.hear(11, 11.0) is None
    assert peers.silent_since(2.0) == ["pipe 0", "pipe 1"]
    peers.leave(0)
    peers.leave(0)
    assert peers.of("cam-1") == ["pipe 1", "pipe 2", "pipe 3", "pipe 9"]
    assert peers.of("cam-2") == []
    assert len(peers) == 5


def test_no_key_is_shown_by_accident(fleet: Fleet) -> None:
    for tls in (fleet.server_tls(), node_tls(fleet)):
        assert b"PRIVATE" in (tls.key or b"")
        assert "PRIVATE" not in repr(tls)
    assert os.environ.get("SSLKEYLOGFILE") is None
