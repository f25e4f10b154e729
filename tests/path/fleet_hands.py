"""Hands for tests of a fleet: `picketctl` as a user types it, and a node that only speaks."""

from __future__ import annotations

import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.accelerator.manifest import SHIPPED, Manifest
from appliance.alerts.seal import AlertKey, seal_alert
from appliance.config import Config, load
from appliance.controller.authority import bundle_path
from appliance.controller.report import Report
from appliance.link import credentials
from appliance.link.nng import NngLink
from appliance.link.question import ask
from appliance.services.identity import load_identity
from appliance.services.join import join
from appliance.watchlist.build import Facts, Templates
from appliance.watchlist.bundle import WHOLE
from appliance.watchlist.files import create, new_key, write_key
from appliance.watchlist.grant import GrantKey
from appliance.wire import (
    Ack,
    Answer,
    Deny,
    Fetch,
    Hello,
    Offer,
    Piece,
    Poll,
    Row,
    Welcome,
    hello_signed_part,
)
from appliance.wire import (
    Report as Reported,
)
from tests.builders import a_health, an_alert

LONG_S = 20.0
"""Never waited for: what is to come comes at once."""
T = TypeVar("T")


def wait_for(what: Callable[[], T | None], timeout_s: float = LONG_S) -> T:
    """The first thing that is something."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"nothing within {timeout_s} s")


def picketctl(*arguments: object, fleet: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end, as its own process."""
    words = [str(a) for a in arguments]
    if fleet is not None:
        words += ["--fleet", str(fleet)]
    return subprocess.run(
        [sys.executable, "-m", "appliance.controller", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"TZ": "UTC"},
    )


class Serving:
    """`picketctl serve --json` as a process, and the events that it told."""

    def __init__(self, fleet: Path, url: str = "tls+tcp://127.0.0.1:0", join: str = "") -> None:
        self.child = subprocess.Popen(
            [
                *(sys.executable, "-m", "appliance.controller", "serve", "--json"),
                *("--fleet", str(fleet), "--listen", url),
                *("--join", join or "tls+tcp://127.0.0.1:0"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        listening = self.told("listening")
        self.url, self.join_url = listening["url"], listening["join_url"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def told(self, kind: str, **fields: object) -> dict[str, Any]:
        """The first event of a kind with these fields, which may be still to come."""

        def look() -> dict[str, Any] | None:
            assert self.events or self.child.poll() is None, "it ended without a word"
            for one in list(self.events):
                if one["event"] == kind and fields.items() <= one.items():
                    return one
            return None

        return wait_for(look)

    def stop(self) -> int:
        """End it as systemd does; its exit status."""
        if self.child.poll() is None:
            self.child.terminate()
        status = self.child.wait(LONG_S)
        self._reader.join(LONG_S)
        return status

    def kill(self) -> None:
        """kill -9."""
        self.child.send_signal(signal.SIGKILL)
        self.child.wait(LONG_S)
        self._reader.join(LONG_S)

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.events.append(json.loads(line))
        self.child.stdout.close()


class Node:
    """A node that has joined, and asks what a test wants asked."""

    def __init__(self, folder: Path, serving: Serving) -> None:
        document = tomllib.loads((folder / "node.toml").read_text())
        document["link"] |= {"controllers": [serving.url], "join": serving.join_url}
        (folder / "node.toml").write_text(tomli_w.dumps(document))
        self.config: Config = load(folder / "node.toml")
        self.name = self.config.node.id
        join(self.config, folder / "join.toml")
        self.watch: Ed25519PrivateKey = load_identity(Path(self.config.node.identity))
        self.alert_key = AlertKey.load(bytes.fromhex(self.config.node.alert_key))
        self.boot, self.grant_key = secrets.token_bytes(16), GrantKey()
        self.link = self.dial()

    def dial(self) -> NngLink:
        """Its link to the controllers, with its certificate."""
        tls = credentials.load(Path(self.config.link.state), self.config.link.server_name)
        return NngLink(*self.config.link.controllers, tls=tls, redial_s=(0.05, 0.2))

    def greet(self) -> Welcome:
        key = self.grant_key.public
        signature = self.watch.sign(hello_signed_part(self.name, self.boot, key, "model@1"))
        hello = Hello(self.name, self.boot, key, "model@1", signature)
        return ask(self.link, hello, Welcome, LONG_S)

    def poll(
        self,
        in_use: tuple[str, int] = ("", 0),
        *,
        refused: str = "",
        wait_ms: int = 0,
        timeout_s: float = LONG_S,
    ) -> Answer:
        nonce = secrets.token_bytes(16)
        poll = Poll(self.name, self.boot, nonce, *in_use, refused, 0, wait_ms)
        return ask(self.link, poll, (Offer, Ack, Deny), timeout_s + wait_ms / 1e3)

    def fetch(self, list_id: str, version: int, index: int) -> bytes:
        return ask(self.link, Fetch(self.name, list_id, version, index), Piece, LONG_S).sealed

    def report(self, *rows: Row, timeout_s: float = LONG_S) -> None:
        ask(self.link, Reported(self.name, rows), Ack, timeout_s)

    def row(self, sequence: int) -> Row:
        alert = an_alert(
            alert_id=secrets.token_bytes(16),
            node=self.name,
            boot=self.boot,
            sequence=sequence,
            subject="poi-1",
        )
        return seal_alert(alert, identity=self.watch, alert_key=self.alert_key)

    def health(self, **changes: Any) -> None:
        ask(self.link, a_health(node=self.name, boot=self.boot, **changes), Ack, LONG_S)

    def close(self) -> None:
        self.link.close()


def write_list(
    out: Path, *, fleet: str, version: int = 1, list_id: str = "market", templates: int = 4
) -> Path:
    """A list of made-up vectors, as `picketctl list build` leaves it: its files, unsigned."""
    model = Manifest.load(SHIPPED).model("mobilefacenet-112")
    now_ms = time.time_ns() // 1_000_000
    vectors = np.random.default_rng(version).normal(size=(templates, 192)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    facts = Facts(
        list_id=list_id, version=version, fleet=fleet, created_utc_ms=now_ms,
        not_before_utc_ms=now_ms, expires_utc_ms=now_ms + 12 * 3_600_000, deployment=list_id,
        legal_basis="s. 1", officer="1", target_fpir=0.001, threshold_floor=0.3,
    )  # fmt: skip
    key, path = new_key(), bundle_path(out)
    subjects = [f"poi-{n}" for n in range(templates)]
    columns = {WHOLE: Templates(model.spec.id, [1] * templates, vectors)}
    create(path, facts, subjects, columns, content_key=key)
    write_key(path.with_suffix(".key"), key)
    path.with_suffix(".report.json").write_text(Report([], {}).as_json())
    return path
