"""What reaches systemd's socket, on real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.system.sdnotify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """Where to notify, and who listens there."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@picket-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        listener.settimeout(5)
        yield name, listener


def test_each_call_is_one_datagram(systemd: tuple[str, socket.socket]) -> None:
    name, listener = systemd
    notify = Notifier.from_environment({"NOTIFY_SOCKET": name})
    notify.ready()
    notify.watchdog()
    notify.status("watching, 14.9 frames/s")
    notify.stopping()
    notify("STATUS=idle")
    assert [listener.recv(100) for _ in range(5)] == [
        b"READY=1",
        b"WATCHDOG=1",
        b"STATUS=watching, 14.9 frames/s",
        b"STOPPING=1",
        b"STATUS=idle",
    ]


def test_a_status_cannot_smuggle_in_a_second_line(systemd: tuple[str, socket.socket]) -> None:
    name, listener = systemd
    Notifier(name).status("fine\nWATCHDOG=trigger")
    assert listener.recv(100) == b"STATUS=fine"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_systemd_nothing_is_sent(environment: dict[str, str]) -> None:
    notify = Notifier.from_environment(environment)
    notify.ready()
    assert notify.watchdog_s is None


def test_a_socket_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Notifier(str(tmp_path / "gone")).ready()


def test_the_watchdog_is_ours_only_if_it_names_us() -> None:
    def interval(**environment: str) -> float | None:
        return Notifier.from_environment(environment).watchdog_s

    assert interval(WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid())) == 30.0
    assert interval(WATCHDOG_USEC="500000") == 0.5
    assert interval(WATCHDOG_USEC="30000000", WATCHDOG_PID="1") is None
    with pytest.raises(OSError, match="WATCHDOG_USEC=soon"):
        interval(WATCHDOG_USEC="soon")
