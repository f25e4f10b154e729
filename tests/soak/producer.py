"""Stands for the watch service: no camera, but the same outbox, uplink, downlink and identity.

It decides alerts at a steady rate, numbers, signs and seals them, and reports them to the link
service over ipc. In its ledger it writes "boot number" before an alert goes into the outbox (.d)
and when the link service has answered for it (.a), each before anything else is done about it: a
kill -9 loses no line. Its wall clock jumps by decades from alert to alert.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from appliance.alerts.outbox import MemoryOutbox
from appliance.alerts.seal import AlertKey, seal_alert
from appliance.config import load
from appliance.errors import LinkError
from appliance.link.downlink import Downlink
from appliance.link.nng import NngLink
from appliance.link.question import ask
from appliance.link.uplink import Uplink
from appliance.services.identity import load_identity
from appliance.system.clock import SystemClock
from appliance.system.secret import SecretBuffer
from appliance.system.worker import Crew, Worker
from appliance.types import FalseMatch
from appliance.watchlist.admission import Model
from appliance.watchlist.bundle import WHOLE
from appliance.watchlist.trusted import TrustedWatchlist
from appliance.wire import Ack, Alert, Row
from tests.builders import a_health, an_alert

CAPACITY = 1024
MODEL = "soak@000000000000"
_TABLE = FalseMatch((0.0, 0.5), (0.5, 1e-6), 0.5, 1e-6, 30.0, 1000, 1_000_000, "soak: made up")


class Ledger:
    """Two files, PATH.d and PATH.a; each call is one write, which a kill -9 cannot tear."""

    def __init__(self, path: Path) -> None:
        how = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._files = {mark: os.open(f"{path}.{mark}", how, 0o600) for mark in "da"}

    def write(self, mark: str, rows: Sequence[Row]) -> None:
        lines = "".join(f"{row.boot.hex()} {row.sequence}\n" for row in rows)
        os.write(self._files[mark], lines.encode())


class Told(MemoryOutbox):
    """An outbox that writes down what the link service has answered for."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(CAPACITY)
        self._ledger = ledger

    def drop(self, rows: Sequence[Row]) -> None:
        self._ledger.write("a", rows)
        super().drop(rows)


class Producer:
    """The watch service without eyes.

    Args:
        config: path of node.toml.
        ledger: path.
        rate: alerts per second.
        burst: alerts at the beginning, as fast as they are taken.
    """

    def __init__(self, config: Path, ledger: Path, *, rate: float, burst: int) -> None:
        self._config, self._ledger = load(config), Ledger(ledger)
        self._rate, self._burst = rate, burst
        self._boot, self._stop = secrets.token_bytes(16), threading.Event()
        self._identity = load_identity(Path(self._config.node.identity))
        self._alert_key = AlertKey.load(bytes.fromhex(self._config.node.alert_key))
        self._outbox, self._last = Told(self._ledger), 0
        self._rng = random.Random()  # noqa: S311 - spreads waits and dates
        self._link = NngLink(f"ipc://{self._config.local.run}/link.ipc", redial_s=(0.05, 1.0))

    def run(self) -> None:
        """Until it is killed."""
        node, clock = self._config.node, SystemClock()
        uplink = Uplink(
            self._outbox,
            self._link,
            node=node.id,
            timeout_s=self._config.link.answer_timeout_s,
            rng=self._rng,
            clock=clock,
            stop=self._stop,
            longest_s=1.0,
        )
        door = TrustedWatchlist(
            node=node.id,
            boot=self._boot,
            fleet=node.fleet,
            authorities=[bytes.fromhex(key) for key in node.authorities],
            signatures=node.signatures,
            online_key=bytes.fromhex(node.online_key),
            models={WHOLE: Model(MODEL, 192, _TABLE)},
            allocate=SecretBuffer,
        )
        downlink = Downlink(
            self._link,
            door,
            sign=self._identity.sign,
            node=node.id,
            boot=self._boot,
            model=MODEL,
            timeout_s=self._config.link.answer_timeout_s + 2.0,
            poll_s=2.0,
            rng=self._rng,
            clock=clock,
            stop=self._stop,
            longest_s=2.0,
        )
        steps = (
            ("decide", self._decide),
            ("uplink", uplink.step),
            ("downlink", downlink.step),
            ("health", self._tell),
        )
        Crew([Worker(name, step, self._stop) for name, step in steps], self._stop).run()

    def _decide(self) -> None:
        if self._outbox.depth >= CAPACITY:
            self._stop.wait(0.01)
            return
        self._last += 1
        row = seal_alert(
            self._alert(self._last), identity=self._identity, alert_key=self._alert_key
        )
        self._ledger.write("d", [row])
        self._outbox.put([row])
        if self._last > self._burst:
            self._stop.wait(self._rng.expovariate(self._rate))

    def _alert(self, sequence: int) -> Alert:
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return an_alert(
            alert_id=secrets.token_bytes(16),
            node=self._config.node.id,
            boot=self._boot,
            sequence=sequence,
            subject=f"s-{sequence % 100}",
            first_seen_boot_ns=now_ns,
            exposed_boot_ns=now_ns,
            decided_boot_ns=now_ns,
            decided_utc_ms=self._rng.choice([None, 0, self._rng.randrange(2**42)]),
        )

    def _tell(self) -> None:
        health = a_health(node=self._config.node.id, boot=self._boot, outbox=self._outbox.depth)
        with contextlib.suppress(LinkError):  # no controller, and no fault
            ask(self._link, health, Ack, 3.0)
        self._stop.wait(1.0)


if __name__ == "__main__":
    Producer(
        Path(sys.argv[1]), Path(sys.argv[2]), rate=float(sys.argv[3]), burst=int(sys.argv[4])
    ).run()
