"""The HAProxy configuration that is shipped, run in front of a real TLS port."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path

import pytest

from appliance.controller.fleet import Fleet, Settings
from appliance.controller.identity import pem
from appliance.link import credentials
from appliance.link.listener import open_files
from appliance.link.nng import NngLink
from appliance.link.overhear import overhear
from appliance.link.rawrep import RawRep
from appliance.link.tls import ClientTls

NOW = datetime.now(UTC)
LONG_S = 20.0
HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="needs HAProxy: apt install haproxy")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def eventually(true: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)  # between two looks, not for something to happen


def accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def hung_up(stranger: socket.socket) -> bool:
    """Whether the other end has closed."""
    stranger.setblocking(False)
    try:
        return stranger.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class Front:
    """A controller that answers with the asker's name, and HAProxy before it."""

    def __init__(self, fleet: Fleet, stack: ExitStack, config: Path) -> None:
        self.socket = RawRep("tls+tcp://127.0.0.1:0", max_bytes=4096, tls=fleet.server_tls())
        stack.callback(self.socket.close)
        self.peers: list[str | None] = []
        self._stop = threading.Event()
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self._stop.set)
        self.port = free_port()
        environment = {
            "PICKET_LISTEN": f"127.0.0.1:{self.port}",
            "PICKET_CONTROLLER": self.socket.url.removeprefix("tls+tcp://"),
            "PICKET_JOIN_LISTEN": f"127.0.0.1:{free_port()}",
            "PICKET_HELLO_WITHIN": "1s",
        }
        assert HAPROXY
        process = stack.enter_context(
            subprocess.Popen(
                [HAPROXY, "-db", "-f", str(config)],
                env=os.environ | environment,
                stderr=subprocess.DEVNULL,
            )
        )
        stack.callback(process.kill)
        eventually(lambda: accepts(self.port), "HAProxy listens")

    def _serve(self) -> None:
        while not self._stop.is_set():
            received = self.socket.receive(0.05)
            if received is not None:
                self.peers.append(received.peer)
                self.socket.send(received.reply_to, str(received.peer).encode())


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet.init(tmp_path / "fleet", Settings(name="market"), now=NOW)


@pytest.fixture
def front(fleet: Fleet) -> Iterator[Front]:
    with ExitStack() as stack:
        shipped = files("appliance.controller") / "haproxy.cfg"
        yield Front(fleet, stack, stack.enter_context(as_file(shipped)))


def node_tls(fleet: Fleet) -> ClientTls:
    key = credentials.new_key()
    issued = fleet.issue("cam-1", credentials.request_for(key, "cam-1"), NOW)
    ca = pem(fleet.authority.certificate)
    return ClientTls(ca, "controller", pem(issued), credentials.key_pem(key))


def test_the_shipped_configuration_is_good() -> None:
    assert HAPROXY
    with as_file(files("appliance.controller") / "haproxy.cfg") as shipped:
        checked = subprocess.run(
            [HAPROXY, "-c", "-f", str(shipped)], capture_output=True, text=True, check=False
        )
    assert checked.returncode == 0, checked.stderr
    assert "warning" not in checked.stderr.lower()


@pytest.mark.slow
def test_an_honest_node_is_served_and_strangers_never_reach_the_controller(
    fleet: Fleet, front: Front
) -> None:
    rng = random.Random(4)  # noqa: S311 - a fuzzer's
    tally = overhear()
    with (
        NngLink(f"tls+tcp://127.0.0.1:{front.port}", tls=node_tls(fleet)) as node,
        ExitStack() as stack,
    ):
        assert node.request(b"hello", LONG_S) == b"cam-1"
        failed, before = tally.handshakes, open_files(0)
        strangers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", front.port), 5))
            for _ in range(60)
        ]
        for stranger in strangers[20:40]:
            stranger.sendall(b"\0SP\0\0\x30\0\0" + rng.randbytes(40))
        for stranger in strangers[40:]:
            stranger.sendall(b"\x16\x03\x01\x02\0\x01")  # half a ClientHello
        assert node.request(b"still", LONG_S) == b"cam-1"
        # Only our own ends of the strangers' connections are open here.
        assert open_files(0) == before + len(strangers)
        eventually(lambda: all(map(hung_up, strangers)), "strangers hung up on")
        assert tally.handshakes == failed
        assert node.request(b"and after", LONG_S) == b"cam-1"
    assert front.peers == ["cam-1"] * 3
