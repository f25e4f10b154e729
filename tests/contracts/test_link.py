"""Link: over a simulated cable, and over NNG within the process, through TCP and through TLS."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Protocol

import pytest

from appliance.controller import identity
from appliance.errors import LinkError
from appliance.interfaces import Link
from appliance.link import credentials
from appliance.link.nng import NngLink
from appliance.link.rawrep import RawRep
from appliance.link.simulated import SimulatedLink
from appliance.link.tls import ClientTls, ServerTls
from appliance.system.memory import rss_bytes

ANSWER_MAX = 4096
REQUEST_MAX = 1024
LONG_S = 20.0
"""Never waited for: an answer that is to come comes at once."""
SHORT_S = 0.3
"""Always waited for: there is no answer."""


def shout(question: bytes) -> bytes:
    return question.upper()


@cache
def certificates() -> tuple[ServerTls, ClientTls]:
    now = datetime.now(UTC)
    authority = identity.new_authority("fleet", now)
    ca, server, node = (
        identity.pem(authority.certificate),
        identity.new_key(),
        credentials.new_key(),
    )
    shown = identity.issue_controller(authority, "controller", server.public_key(), now)
    issued = identity.issue_node(authority, "cam", credentials.request_for(node, "cam"), now)
    crl = identity.revocations(authority, (), 1, now)
    return (
        ServerTls(ca, identity.pem(shown), identity.private_pem(server), crl),
        ClientTls(ca, "controller", identity.pem(issued), credentials.key_pem(node)),
    )


def server_tls(url: str) -> ServerTls | None:
    return certificates()[0] if url.startswith("tls+") else None


def client_tls(url: str) -> ClientTls | None:
    return certificates()[1] if url.startswith("tls+") else None


class Rig(Protocol):
    """A link, and hands on both ends of the cable."""

    link: Link

    def lose_next_answer(self) -> None: ...
    def pull(self) -> None: ...
    def plug(self) -> None: ...
    def arrived(self) -> list[bytes]: ...


class SimulatedRig:
    def __init__(self) -> None:
        self.simulated = SimulatedLink(shout, request_max_bytes=REQUEST_MAX)
        self.link: Link = self.simulated

    def lose_next_answer(self) -> None:
        self.simulated.lose_next_answer = True

    def pull(self) -> None:
        self.simulated.up = False

    def plug(self) -> None:
        self.simulated.up = True

    def arrived(self) -> list[bytes]:
        return list(self.simulated.arrived)

    def close(self) -> None:
        self.simulated.close()


class Shouter:
    """A controller that shouts back, on a thread of its own."""

    def __init__(self, url: str, answer: Callable[[bytes], bytes | None] = shout) -> None:
        self.socket = RawRep(url, max_bytes=REQUEST_MAX, tls=server_tls(url))
        self.url = self.socket.url
        self.arrived: list[bytes] = []
        self.lose_next_answer = False
        self._answer, self._stop = answer, threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            received = self.socket.receive(0.05)
            if received is None:
                continue
            reply_to, question, _ = received
            self.arrived.append(question)
            if self.lose_next_answer:
                self.lose_next_answer = False
                continue
            answer = self._answer(question)
            if answer is not None:
                self.socket.send(reply_to, answer)

    def kill(self) -> None:
        self._stop.set()
        self.socket.close()
        self._thread.join()


class NngRig:
    def __init__(self, url: str) -> None:
        self.shouter = Shouter(url)
        self.before: list[bytes] = []
        self.nng = NngLink(
            self.shouter.url,
            tls=client_tls(url),
            redial_s=(0.01, 0.05),
            answer_max_bytes=ANSWER_MAX,
            request_max_bytes=REQUEST_MAX,
        )
        self.link: Link = self.nng

    def lose_next_answer(self) -> None:
        self.shouter.lose_next_answer = True

    def pull(self) -> None:
        self.shouter.kill()

    def plug(self) -> None:
        self.before = self.arrived()
        self.shouter = Shouter(self.shouter.url)

    def arrived(self) -> list[bytes]:
        return self.before + self.shouter.arrived

    def close(self) -> None:
        self.nng.close()
        self.shouter.kill()


@pytest.fixture(params=["simulated", "inproc", "tcp", "tls+tcp"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made: SimulatedRig | NngRig
    if request.param == "simulated":
        made = SimulatedRig()
    elif request.param == "inproc":
        made = NngRig(f"inproc://link-{time.monotonic_ns()}")
    else:
        made = NngRig(f"{request.param}://127.0.0.1:0")
    yield made
    made.close()


def test_a_question_gets_its_answer(rig: Rig) -> None:
    assert rig.link.request(b"who goes there", LONG_S) == b"WHO GOES THERE"
    assert rig.arrived() == [b"who goes there"]


def test_many_threads_get_each_its_own_answer(rig: Rig) -> None:
    questions = [f"question {i}".encode() for i in range(64)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda q: rig.link.request(q, LONG_S), questions))
    assert answers == [shout(question) for question in questions]


def test_a_lost_answer_is_an_error_and_the_question_has_arrived(rig: Rig) -> None:
    rig.link.request(b"first", LONG_S)
    rig.lose_next_answer()
    with pytest.raises(LinkError, match="no answer within"):
        rig.link.request(b"second", SHORT_S)
    assert rig.arrived() == [b"first", b"second"]


def test_after_a_lost_answer_the_next_question_gets_its_own(rig: Rig) -> None:
    rig.lose_next_answer()
    with pytest.raises(LinkError):
        rig.link.request(b"lost", SHORT_S)
    assert rig.link.request(b"next", LONG_S) == b"NEXT"
    assert rig.link.request(b"last", LONG_S) == b"LAST"


def test_without_a_controller_a_question_is_an_error_and_afterwards_it_is_not(rig: Rig) -> None:
    rig.link.request(b"before", LONG_S)
    rig.pull()
    with pytest.raises(LinkError):
        rig.link.request(b"during", SHORT_S)
    rig.plug()
    assert rig.link.request(b"after", LONG_S) == b"AFTER"


def test_what_was_given_up_is_not_asked_again_later(rig: Rig) -> None:
    rig.pull()
    with pytest.raises(LinkError):
        rig.link.request(b"given up", SHORT_S)
    rig.plug()
    rig.link.request(b"after", LONG_S)
    rig.link.request(b"later", LONG_S)
    assert rig.arrived() == [b"after", b"later"]


def test_a_question_that_is_too_long_is_not_sent(rig: Rig) -> None:
    assert rig.link.request(b"x" * REQUEST_MAX, LONG_S) == b"X" * REQUEST_MAX
    with pytest.raises(LinkError, match="question of 1025 bytes: at most 1024 are sent"):
        rig.link.request(b"x" * (REQUEST_MAX + 1), LONG_S)
    assert rig.arrived() == [b"x" * REQUEST_MAX]


def test_a_closed_link_refuses(rig: Rig) -> None:
    with rig.link as link:
        link.request(b"open", LONG_S)
    with pytest.raises(LinkError, match="closed"):
        rig.link.request(b"closed", LONG_S)


# From here on: what only a real socket can do.


@pytest.fixture(params=["tcp", "tls+tcp"])
def url(request: pytest.FixtureRequest) -> str:
    return f"{request.param}://127.0.0.1:0"


def test_closing_ends_questions_that_wait(url: str) -> None:
    shouter = Shouter(url, answer=lambda _: None)
    link = NngLink(shouter.url, tls=client_tls(url))
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(link.request, b"parked", 600.0) for _ in range(3)]
        while len(shouter.arrived) < 3:
            assert not any(question.done() for question in asked)
        link.close()
        for question in asked:
            with pytest.raises(LinkError):
                question.result(LONG_S)
    shouter.kill()


def test_closing_ends_questions_that_found_nobody() -> None:
    link = NngLink("tcp://127.0.0.1:1")
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(link.request, b"nobody", 600.0) for _ in range(3)]
        link.close()
        for question in asked:
            with pytest.raises(LinkError):
                question.result(LONG_S)


def test_winding_down_ends_a_parked_poll_and_leaves_time_for_a_last_report(url: str) -> None:
    shouter = Shouter(url, answer=lambda q: None if q == b"parked" else shout(q))
    with (
        NngLink(shouter.url, tls=client_tls(url), redial_s=(0.01, 0.05)) as link,
        ThreadPoolExecutor(1) as threads,
    ):
        parked = threads.submit(link.request, b"parked", 600.0)
        while not shouter.arrived:
            assert not parked.done()
        link.wind_down(0.2)
        with pytest.raises(LinkError):
            parked.result(LONG_S)
        with pytest.raises(LinkError, match="no answer within"):
            link.request(b"parked", 600.0)
        assert link.request(b"report", LONG_S) == b"REPORT"
    shouter.kill()


def test_more_questions_than_turns_wait_for_theirs(url: str) -> None:
    shouter = Shouter(url, answer=lambda q: None if q == b"hog" else shout(q))
    with (
        NngLink(shouter.url, tls=client_tls(url), concurrent=1) as link,
        ThreadPoolExecutor(1) as threads,
    ):
        hog = threads.submit(link.request, b"hog", 600.0)
        while not shouter.arrived:
            assert not hog.done()
        with pytest.raises(LinkError, match="other questions were under way"):
            link.request(b"me, too", 0.05)
        link.wind_down(LONG_S)
        with pytest.raises(LinkError):
            hog.result(LONG_S)
        assert link.request(b"me, too", LONG_S) == b"ME, TOO"
    shouter.kill()


def test_an_answer_that_is_too_long_is_an_error_and_does_no_harm(url: str) -> None:
    shouter = Shouter(url, answer=lambda q: bytes(ANSWER_MAX + 100) if q == b"long" else shout(q))
    with NngLink(
        shouter.url, tls=client_tls(url), redial_s=(0.01, 0.05), answer_max_bytes=ANSWER_MAX
    ) as link:
        with pytest.raises(LinkError):
            link.request(b"long", SHORT_S)
        assert link.request(b"short", LONG_S) == b"SHORT"
    shouter.kill()


def test_a_message_over_the_controllers_bound_disconnects_its_sender_alone(url: str) -> None:
    shouter = Shouter(url)
    with (
        NngLink(shouter.url, tls=client_tls(url), redial_s=(0.01, 0.05)) as rude,
        NngLink(shouter.url, tls=client_tls(url), redial_s=(0.01, 0.05)) as civil,
    ):
        assert civil.request(b"hello", LONG_S) == b"HELLO"
        with pytest.raises(LinkError):
            rude.request(bytes(REQUEST_MAX + 100), SHORT_S)
        assert civil.request(b"still here", LONG_S) == b"STILL HERE"
        assert all(len(question) <= REQUEST_MAX for question in shouter.arrived)
    shouter.kill()


def test_without_a_connection_for_long_the_socket_is_made_anew(url: str) -> None:
    shouter = Shouter(url)
    with NngLink(shouter.url, tls=client_tls(url), redial_s=(0.01, 0.01), pipeless_s=0.0) as link:
        link.request(b"before", LONG_S)
        first = link._line
        shouter.kill()
        with pytest.raises(LinkError):
            link.request(b"during", SHORT_S)
        assert link._line is not first
        shouter = Shouter(shouter.url)
        assert link.request(b"after", LONG_S) == b"AFTER"
    shouter.kill()


def test_a_controller_that_is_away_makes_way_for_the_next(url: str) -> None:
    first, second = Shouter(url), Shouter(url)
    with NngLink(
        *(first.url, second.url), tls=client_tls(url), redial_s=(0.01, 0.01), pipeless_s=0.0
    ) as link:
        assert link.request(b"first", LONG_S) == b"FIRST"
        assert link.url == first.url
        first.kill()
        with pytest.raises(LinkError, match=re.escape(first.url)):
            link.request(b"during", SHORT_S)
        assert link.request(b"second", LONG_S) == b"SECOND"
        assert second.arrived == [b"second"]
        first = Shouter(first.url)
        second.kill()
        with pytest.raises(LinkError, match=re.escape(second.url)):
            link.request(b"during", SHORT_S)
        assert link.request(b"first again", LONG_S) == b"FIRST AGAIN"
    first.kill()


def test_a_controller_that_connects_and_is_silent_makes_way_for_the_next(url: str) -> None:
    silent, second = Shouter(url, answer=lambda _: None), Shouter(url)
    with NngLink(*(silent.url, second.url), tls=client_tls(url), pipeless_s=0.0) as link:
        with pytest.raises(LinkError, match="no answer"):
            link.request(b"hello", SHORT_S)
        assert link.request(b"hello", LONG_S) == b"HELLO"
    silent.kill()
    second.kill()


def test_what_is_received_is_bounded_and_the_bound_was_read_back(url: str) -> None:
    shouter = Shouter(url)
    assert shouter.socket._socket.recv_max_size == REQUEST_MAX + 64
    with NngLink(shouter.url, tls=client_tls(url), answer_max_bytes=ANSWER_MAX) as link:
        assert link._line._socket.recv_max_size == ANSWER_MAX + 64
    shouter.kill()


def test_questions_that_find_nobody_are_not_kept_in_memory() -> None:
    with NngLink("tcp://127.0.0.1:1", redial_s=(60.0, 60.0)) as link:

        def ask_in_vain(times: int) -> None:
            for _ in range(times):
                with pytest.raises(LinkError):
                    link.request(bytes(100_000), 0.001)

        ask_in_vain(20)
        before = rss_bytes()
        ask_in_vain(200)  # of which pynng itself would keep 20 MB
        assert rss_bytes() < before + 8 * 2**20


@pytest.mark.parametrize("kind", ["tcp", "ipc"])
def test_hostile_bytes_on_the_socket_leave_honest_askers_served(kind: str, tmp_path: Path) -> None:
    shouter = Shouter("tcp://127.0.0.1:0" if kind == "tcp" else f"ipc://{tmp_path / 's.ipc'}")
    rng = random.Random(6)  # noqa: S311 - a fuzzer's

    def rude() -> socket.socket:
        if kind == "tcp":
            host, port = shouter.url.removeprefix("tcp://").split(":")
            return socket.create_connection((host, int(port)), 5)
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(str(tmp_path / "s.ipc"))
        return raw

    with NngLink(shouter.url) as honest:
        assert honest.request(b"before", LONG_S) == b"BEFORE"
        before = rss_bytes()
        for _ in range(200):
            lengths = [2**63, 2**33, REQUEST_MAX + 100, 5, 0]
            head = b"\0SP\0\0\x30\0\0" if rng.random() < 0.7 else rng.randbytes(8)
            kind_byte = b"" if kind == "tcp" else b"\x01"
            frame = kind_byte + rng.choice(lengths).to_bytes(8, "big") + rng.randbytes(60)
            with rude() as raw, suppress(OSError):
                raw.sendall(head + frame[: rng.randrange(len(frame) + 1)])
        assert honest.request(b"after", LONG_S) == b"AFTER"
        assert rss_bytes() < before + 8 * 2**20
    shouter.kill()
    assert all(len(question) <= REQUEST_MAX + 64 for question in shouter.arrived)


def test_certificates_go_with_tls_addresses_and_with_no_others() -> None:
    for url in ("tcp://127.0.0.1:7441", "ipc:///nowhere"):
        with pytest.raises(LinkError, match="certificates go with"):
            NngLink(url, tls=client_tls("tls+tcp://"))
        with pytest.raises(LinkError, match="certificates go with"):
            RawRep(url, max_bytes=REQUEST_MAX, tls=server_tls("tls+tcp://"))
    with pytest.raises(LinkError, match="certificates go with"):
        NngLink("tcp://127.0.0.1:7441", "tls+tcp://127.0.0.1:7441")
    with pytest.raises(LinkError, match="no address to dial"):
        NngLink()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "tcp://", "foo://127.0.0.1:7441", "tcp://127.0.0.1"]
)
def test_an_address_that_is_none_is_one_line(url: str) -> None:
    with pytest.raises(LinkError, match="is no address that can be dialled") as refused:
        NngLink(url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "tcp://", "foo://127.0.0.1:7441", "tcp://1.1.1.1:7441"]
)
def test_an_address_to_listen_at_that_is_none_is_one_line(url: str) -> None:
    with pytest.raises(LinkError, match="is no address to listen at") as refused:
        RawRep(url, max_bytes=REQUEST_MAX)
    assert "\n" not in str(refused.value)


def test_an_address_in_use_is_one_line() -> None:
    first = RawRep("tcp://127.0.0.1:0", max_bytes=REQUEST_MAX)
    with pytest.raises(LinkError, match=f"^{first.url} is in use$"):
        RawRep(first.url, max_bytes=REQUEST_MAX)
    first.close()
