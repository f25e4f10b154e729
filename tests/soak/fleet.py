"""One node and its controller as real processes that can be killed, and what became of alerts."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from appliance import config as configuration
from appliance.controller import cli
from appliance.controller.fleet import Fleet
from appliance.controller.store import KeptAlert, Store
from appliance.controller.workplace import open_store
from appliance.errors import PicketError
from appliance.services.join import join
from tests.soak.proxy import Proxy

NODE = "cam-soak"
_ROOT = Path(__file__).parents[2]
_UP_S = 60.0
"""A Python process on a busy machine."""


class SoakError(PicketError):
    """Something that must not happen has happened."""


def eventually(holds: Callable[[], bool], what: str, timeout_s: float = _UP_S) -> None:
    """Wait for a condition.

    Raises:
        SoakError: it did not come true.
    """
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise SoakError(f"not within {timeout_s:.0f} s: {what}")
        threading.Event().wait(0.05)


class Child:
    """A program of ours, started again after each kill; its output goes to one file."""

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self.name, self.kills = name, 0
        self.environment: dict[str, str] = {}
        self.arguments, self._log = arguments, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it must not be running."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=_ROOT,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """Kill -9.

        Raises:
            SoakError: it had ended by itself.
        """
        process = self._process
        if process is None:
            return
        self.check()
        process.kill()
        status = process.wait()
        if status != -signal.SIGKILL:
            raise SoakError(f"{self.name} ended by itself with {status}: {self.last_words()}")
        self.kills += 1
        self._process = None

    def end(self) -> None:
        """Kill it for good; how it ends does not matter any longer."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def check(self) -> None:
        """Raise SoakError if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise SoakError(
                f"{self.name} ended by itself with {self._process.returncode}: {self.last_words()}"
            )

    def last_words(self) -> str:
        """The end of its output."""
        return self._log.read_text(errors="replace")[-2000:]

    def count(self, pattern: str) -> int:
        """How often something is in its output."""
        return len(re.findall(pattern, self._log.read_text(errors="replace")))


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of alerts; `lost`, `twice`, `invented`, `unreadable`, `gaps` must be 0."""

    decided: int
    answered: int
    stored: int
    lost: int
    twice: int
    invented: int
    unreadable: int
    gaps: int

    @property
    def good(self) -> bool:
        """Nothing that must not be."""
        return not any((self.lost, self.twice, self.invented, self.unreadable, self.gaps))


class SoakFleet:
    """A fleet of one node in a folder: made, joined, and its three processes to be killed.

    Args:
        folder: empty.
        rate: alerts per second.
    """

    def __init__(self, folder: Path, *, rate: float) -> None:
        self.folder, self._rate = folder, rate
        self._arrived: set[tuple[str, int]] = set()
        self._since_ms = 0
        port, join_port = _free_port(), _free_port()
        self.proxy = Proxy(port)
        url, join_url = (f"tls+tcp://127.0.0.1:{p}" for p in (port, join_port))
        node_url = f"tls+tcp://127.0.0.1:{self.proxy.port}"
        fleet, node = str(folder / "fleet"), folder / "node"
        _done(cli.main(["init", fleet, "--controller", node_url, "--join", join_url]))
        _done(cli.main(["node", "add", NODE, "--fleet", fleet, "--out", str(node)]))
        self.controller = Child(
            "controller",
            [
                *("-m", "appliance.controller", "serve", "--fleet", fleet, "--json"),
                *("--listen", url, "--join", join_url),
            ],
            folder / "controller.log",
        )
        self.controller.start()
        self._configure(node / "node.toml")
        join(configuration.load(node / "node.toml"), node / "join.toml", timeout_s=_UP_S)
        self.link = Child(
            "link",
            ["-m", "appliance", "run", "link", "--config", str(node / "node.toml")],
            folder / "link.log",
        )
        self.watch = Child("watch", [], folder / "watch.log")
        self.children = (self.watch, self.link, self.controller)
        self.produce(burst=0)
        self.link.start()
        self.watch.start()

    def produce(self, *, burst: int) -> None:
        """From its next start on the watch begins with so many alerts at once."""
        self.watch.arguments = [
            *("-m", "tests.soak.producer", str(self.folder / "node" / "node.toml")),
            *(str(self.folder / "ledger"), str(self._rate), str(burst)),
        ]

    def sign_of_life(self, child: Child) -> Callable[[], int]:
        """A number that grows, by some tens per alert, as this process works."""
        log = "controller.log" if child is self.controller else "ledger.a"
        path = self.folder / log
        return lambda: path.stat().st_size if path.exists() else 0

    def answered(self) -> set[tuple[str, int]]:
        """(boot, number) of what the link service has answered for."""
        return set(self._ledger("a"))

    def stored(self) -> Counter[tuple[str, int]]:
        """(boot, number) of what the controller has, and how often."""
        with self._store() as store:
            return Counter(_numbers(store.alerts.newest(10**9)))

    def settle(self, timeout_s: float = 120.0, *, from_the_beginning: bool = False) -> None:
        """Wait until what has been answered for up to now is in the controller's store.

        Args:
            timeout_s: for all of it.
            from_the_beginning: the controller's clock has jumped, and with it the times at which
                it says that alerts were received.

        Raises:
            SoakError: it does not come.
        """
        waiting = self.answered() - self._arrived

        def arrived() -> bool:
            for child in self.children:
                child.check()
            with self._store() as store:
                since_ms = 0 if from_the_beginning else self._since_ms
                new = store.alerts.since(since_ms, most=10**9)
            self._arrived.update(_numbers(new))
            # Once more from a little earlier, next time: clocks and commits have no order.
            if not from_the_beginning:
                self._since_ms = max([self._since_ms, *(one.received_ms - 60_000 for one in new)])
            return waiting <= self._arrived

        eventually(arrived, "all that was answered for is stored", timeout_s)

    def tally(self) -> Tally:
        """What became of the alerts; call it after `settle`, with the watch killed."""
        decided, answered, stored = set(self._ledger("d")), self.answered(), self.stored()
        with self._store() as store:
            unreadable, gaps = store.alerts.counts()[1], len(store.alerts.gaps())
            gaps += len(store.alerts.conflicts())
        return Tally(
            decided=len(decided),
            answered=len(answered),
            stored=len(stored),
            lost=len(answered - stored.keys()),
            twice=sum(count > 1 for count in stored.values()),
            invented=len(stored.keys() - decided),
            unreadable=unreadable,
            gaps=gaps,
        )

    def close(self) -> None:
        """Kill everything."""
        self.proxy.close()
        for child in self.children:
            child.end()

    def _store(self) -> AbstractContextManager[Store]:
        return open_store(Fleet.load(self.folder / "fleet"))

    def _ledger(self, mark: str) -> list[tuple[str, int]]:
        path = self.folder / f"ledger.{mark}"
        lines = path.read_text().splitlines() if path.exists() else []
        found = (line.split() for line in lines)
        return [(boot, int(number)) for boot, number in found]

    def _configure(self, path: Path) -> None:
        document = tomllib.loads(path.read_text())
        document["link"]["answer_timeout_s"] = 2.0
        document["local"] = {"run": "run"}
        document["camera"] = {"source": "scene", "path": "none.toml"}
        path.write_text(tomli_w.dumps(document))
        (path.parent / "run").mkdir()


def _numbers(kept: Iterable[KeptAlert]) -> list[tuple[str, int]]:
    return [(one.arrival.boot.hex(), one.arrival.sequence) for one in kept]


def _done(status: int) -> None:
    if status:
        raise SoakError(f"picketctl ended with {status}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
