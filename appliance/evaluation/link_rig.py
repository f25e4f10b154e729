"""A fleet to measure: nodes that joined, played by threads, and a controller process of its own."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.alerts.seal import AlertKey, seal_alert
from appliance.controller.authority import signing_key
from appliance.controller.fleet import Fleet
from appliance.controller.identity import pem
from appliance.controller.keeping import keep_list
from appliance.controller.store import Deployment, Store
from appliance.errors import EvaluationError
from appliance.link import credentials
from appliance.link.nng import NngLink
from appliance.link.question import ask
from appliance.link.tls import ClientTls
from appliance.watchlist.build import Facts, Templates
from appliance.watchlist.bundle import WHOLE
from appliance.watchlist.files import create, new_key, sign_file, write_key
from appliance.watchlist.grant import GrantKey
from appliance.wire import (
    Ack,
    Alert,
    Fetch,
    Hello,
    Offer,
    Piece,
    Poll,
    Report,
    Row,
    Welcome,
    hello_signed_part,
)

LIST_ID, DIM = "bench", 192
_MODEL = "bench@0"
_PATIENT_S = 120.0
_START_S = 30.0
_LINE_MAX_BYTES = 4096
_DAY_MS = 86_400_000


class Actor:
    """A node, as far as the controller can tell.

    Args:
        name: of the node.
        fleet: that it belongs to.
        store: where it joins, without a question asked.
    """

    def __init__(self, name: str, fleet: Fleet, store: Store) -> None:
        self.name, self.boot = name, secrets.token_bytes(16)
        self._watch, self._grant_key = Ed25519PrivateKey.generate(), GrantKey()
        self._alert_key = AlertKey.load(fleet.alert_public_key)
        self._sequence = 0
        key, now = credentials.new_key(), datetime.now(UTC)
        certificate = fleet.issue(name, credentials.request_for(key, name), now)
        now_ms = round(now.timestamp() * 1e3)
        store.nodes.invite(name, token_hash=bytes(32), expires_ms=now_ms + 1, now_ms=now_ms)
        store.nodes.join(
            name,
            join_digest=bytes(32),
            watch_key=self._watch.public_key().public_bytes_raw(),
            serial=certificate.serial_number,
            now_ms=now_ms,
        )
        self._tls = ClientTls(
            ca=pem(fleet.authority.certificate),
            server_name=fleet.settings.server_name,
            certificate=pem(certificate),
            key=credentials.key_pem(key),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.link.close()

    def dial(self, url: str) -> None:
        """Connect, and say hello."""
        self.link = NngLink(url, tls=self._tls, redial_s=(0.2, 2.0))
        key = self._grant_key.public
        signature = self._watch.sign(hello_signed_part(self.name, self.boot, key, _MODEL))
        ask(self.link, Hello(self.name, self.boot, key, _MODEL, signature), Welcome, _PATIENT_S)

    def rows(self, count: int) -> tuple[Row, ...]:
        """The next alerts, sealed."""
        return tuple(self._row() for _ in range(count))

    def report(self, rows: Sequence[Row]) -> float:
        """Report, and wait for the answer; how long that took, in seconds."""
        began_s = time.perf_counter()
        ask(self.link, Report(self.name, tuple(rows)), Ack, _PATIENT_S)
        return time.perf_counter() - began_s

    def take_list(self) -> float:
        """Wait for a list, fetch all of it and say so; time.monotonic() when it was complete."""
        offer = self._poll("", 0)
        pieces = len(offer.digests) // 32
        for index in range(pieces):
            ask(self.link, Fetch(self.name, LIST_ID, 1, index), Piece, _PATIENT_S)
        done_s = time.monotonic()
        poll = Poll(self.name, self.boot, secrets.token_bytes(16), LIST_ID, 1, "", 60, 0)
        ask(self.link, poll, Ack, _PATIENT_S)
        return done_s

    def _poll(self, list_id: str, version: int) -> Offer:
        while True:
            nonce = secrets.token_bytes(16)
            poll = Poll(self.name, self.boot, nonce, list_id, version, "", 0, 60_000)
            answer = ask(self.link, poll, (Offer, Ack), _PATIENT_S)
            if isinstance(answer, Offer):
                return answer

    def _row(self) -> Row:
        self._sequence += 1
        alert = Alert(
            alert_id=secrets.token_bytes(16),
            node=self.name,
            boot=self.boot,
            sequence=self._sequence,
            deployment=LIST_ID,
            list_id=LIST_ID,
            list_version=1,
            subject="subject-1",
            similarity=0.7,
            threshold=0.5,
            false_alert_rate=0.0001,
            first_seen_boot_ns=1,
            exposed_boot_ns=2,
            decided_boot_ns=3,
            decided_utc_ms=None,
            frames_fused=5,
            box=(0.1, 0.1, 0.5, 0.5),
            eye_distance_px=40.0,
            occlusion="unknown",
            model=_MODEL,
        )
        return seal_alert(alert, identity=self._watch, alert_key=self._alert_key)


@dataclass(frozen=True, slots=True)
class Controller:
    """A running `picketctl serve`."""

    url: str
    pid: int

    @property
    def mib(self) -> float:
        """Its resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def serve(fleet: Path) -> Iterator[Controller]:
    """The controller as a process of its own, on a free port; what it says goes into a file.

    Raises:
        EvaluationError: it does not start.
    """
    free = "tls+tcp://127.0.0.1:0"
    words = ("serve", "--json", "--fleet", str(fleet), "--listen", free, "--join", free)
    said = fleet / "said.jsonl"
    with said.open("wb") as out:
        child = subprocess.Popen([sys.executable, "-m", "appliance.controller", *words], stdout=out)
    try:
        deadline_s = time.monotonic() + _START_S
        while b"\n" not in (first := said.read_bytes()[:_LINE_MAX_BYTES]):
            if child.poll() is not None or time.monotonic() > deadline_s:
                raise EvaluationError("the controller did not start")
            time.sleep(0.05)
        yield Controller(json.loads(first.splitlines()[0])["url"], child.pid)
    finally:
        child.terminate()
        child.wait()


def deploy(fleet: Fleet, store: Store, templates: int) -> float:
    """Make a list of random templates and let every node use it.

    Returns:
        MiB of its pieces.
    """
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(templates, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    now_ms = time.time_ns() // 1_000_000
    facts = Facts(
        list_id=LIST_ID,
        version=1,
        fleet=fleet.settings.name,
        created_utc_ms=now_ms,
        not_before_utc_ms=now_ms,
        expires_utc_ms=now_ms + _DAY_MS,
        deployment=LIST_ID,
        legal_basis="none: a measurement",
        officer="none",
        target_fpir=0.001,
        threshold_floor=0.3,
    )
    path, key = fleet.folder / "bench.bundle", new_key()
    subjects = [f"subject-{n}" for n in range(templates)]
    columns = {WHOLE: Templates(_MODEL, [1] * templates, vectors)}
    create(path, facts, subjects, columns, content_key=key)
    write_key(path.with_suffix(".key"), key)
    sign_file(path, signing_key(fleet.folder / "authorities" / "authority.key"))
    keep_list(fleet, store, path, None)
    store.deployments.start(
        Deployment(
            deployment=LIST_ID,
            list_id=LIST_ID,
            list_version=1,
            nodes=("*",),
            until_ms=now_ms + _DAY_MS // 2,
            authority="none",
            purpose="measurement",
            location="loopback",
            lease_s=3600,
            started_ms=now_ms,
        ),
        now_ms=now_ms,
    )
    return path.stat().st_size / 2**20
