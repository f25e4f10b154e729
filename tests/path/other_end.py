"""What a watch service has at the other end of its two sockets, played in the test's process.

The list, its stamp and its grant are real; only the sockets lead here instead of to the link and
indicator services. Everything that the watch service sends is kept.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.alerts.seal import AlertPrivateKey, open_alert
from appliance.link.rawrep import RawRep
from appliance.types import Vectors
from appliance.watchlist.build import Facts, Templates, build
from appliance.watchlist.bundle import WHOLE, sign
from appliance.watchlist.grant import Terms, seal_grant
from appliance.watchlist.stamp import Action, Stamp, make_stamp
from appliance.wire import (
    REQUEST_MAX_BYTES,
    Ack,
    Alert,
    Answer,
    Fetch,
    Health,
    Hello,
    Offer,
    Piece,
    Poll,
    Report,
    Row,
    Show,
    Welcome,
    decode_request,
    encode,
)

NODE, FLEET = "cam-test", "fleet-test"
LONG_S = 60.0


def raw_public(key: Ed25519PrivateKey) -> bytes:
    """32 bytes."""
    return key.public_key().public_bytes_raw()


class OtherEnd:
    """Link service, controller and indicator service in one.

    Attributes:
        sent: every byte string that the watch service sent, in order.
        alerts: opened, each once.
        shows: what the lamps were told.
        healths: as they came.
        grants: whether polls are answered with the list; else they are told that there is none.
    """

    def __init__(
        self,
        folder: Path,
        *,
        subjects: list[str],
        vectors: Vectors,
        model: str,
        fpir: float = 0.001,
        columns: Mapping[str, Templates] | None = None,
        sockets: tuple[str, ...] = ("link", "indicator"),
    ) -> None:
        self.folder = folder
        self.authority, self.online, self.identity = (
            Ed25519PrivateKey.generate() for _ in range(3)
        )
        self.alert_key = AlertPrivateKey.generate()
        self.sent: list[bytes] = []
        self.alerts: list[Alert] = []
        self._numbers: set[tuple[bytes, int]] = set()
        self.shows: list[Show] = []
        self.healths: list[Health] = []
        self.grants = True
        self._hello: Hello | None = None
        bare = Templates(model, [1] * len(subjects), np.asarray(vectors, np.float32))
        self._make_list(subjects, {WHOLE: bare, **(columns or {})}, fpir)
        self._stop = threading.Event()
        run = folder / "run"
        run.mkdir()
        self._sockets = [
            RawRep(f"ipc://{run / name}.ipc", max_bytes=REQUEST_MAX_BYTES) for name in sockets
        ]
        self._threads = [
            threading.Thread(target=self._serve, args=(socket,)) for socket in self._sockets
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for socket in self._sockets:
            socket.close()

    def config(self, **tables: Mapping[str, object]) -> Path:
        """Write node.toml and the identity beside it."""
        pem = self.identity.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (self.folder / "watch.key").write_bytes(pem)
        path = self.folder / "node.toml"
        document = {
            "node": {
                "id": NODE,
                "fleet": FLEET,
                "authorities": [raw_public(self.authority).hex()],
                "online_key": raw_public(self.online).hex(),
                "alert_key": self.alert_key.public.raw.hex(),
            },
            "link": {"poll_s": 1.0, "health_s": 0.2},
            "local": {"run": "run"},
            **tables,
        }
        path.write_text(tomli_w.dumps(document), encoding="utf-8")
        return path

    def wait_for(self, what: str, holds: Callable[[], bool], *, timeout_s: float = LONG_S) -> None:
        """Wait until a condition holds."""
        deadline_s = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
            time.sleep(0.01)

    def _make_list(
        self, subjects: list[str], columns: Mapping[str, Templates], fpir: float
    ) -> None:
        now_ms = time.time_ns() // 1_000_000
        facts = Facts(
            list_id="list-test",
            version=1,
            fleet=FLEET,
            created_utc_ms=now_ms,
            not_before_utc_ms=now_ms - 1000,
            expires_utc_ms=now_ms + 3_600_000,
            deployment="deployment-test",
            legal_basis="test",
            officer="test",
            target_fpir=fpir,
            threshold_floor=0.0,
        )
        self.content_key = secrets.token_bytes(32)
        self.pieces: list[bytes] = []
        unsigned, self.digests = build(
            facts,
            subjects,
            columns,
            content_key=self.content_key,
            write=self.pieces.append,
        )
        self.head = sign(unsigned, self.authority)

    def _serve(self, socket: RawRep) -> None:
        while not self._stop.is_set():
            received = socket.receive(0.05)
            if received is not None:
                self.sent.append(received.message)
                answer = self._answer(decode_request(received.message))
                socket.send(received.reply_to, encode(answer))

    def _answer(self, request: object) -> Answer:
        match request:
            case Hello():
                self._hello = request
                return Welcome(time.time_ns() // 1_000_000)
            case Poll():
                return self._poll(request)
            case Fetch():
                return Piece(request.index, self.pieces[request.index])
            case Report():
                for row in request.rows:
                    self._keep(row)
            case Health():
                self.healths.append(request)
            case Show():
                self.shows.append(request)
            case _:
                raise AssertionError(f"asked: {request}")
        return Ack()

    def _keep(self, row: Row) -> None:
        """Once, as the link service does: a row whose answer was lost comes again."""
        if (row.boot, row.sequence) in self._numbers:
            return
        self._numbers.add((row.boot, row.sequence))
        self.alerts.append(
            open_alert(
                row, node=NODE, watch_key=self.identity.public_key(), alert_key=self.alert_key
            )
        )

    def _poll(self, poll: Poll) -> Answer:
        if not self.grants or poll.list_version == 1:
            time.sleep(0.05)  # parked, for a little
            return Ack()
        assert self._hello is not None
        head_sha256 = sha256(self.head).digest()
        terms = Terms(NODE, poll.boot, poll.nonce, head_sha256, "deployment-test", 600)
        stamp = Stamp(
            action=Action.GRANT,
            node=NODE,
            nonce=poll.nonce,
            now_utc_ms=time.time_ns() // 1_000_000,
            list_id="list-test",
            version=1,
            head_sha256=head_sha256,
            deployment="deployment-test",
            lease_s=600,
        )
        grant = seal_grant(self.content_key, to=self._hello.grant_key, terms=terms)
        return Offer(make_stamp(stamp, self.online), self.head, self.digests, grant)


class WatchProcess:
    """The real watch service, or another one, as a child process.

    Args:
        config: node.toml.
        program: run instead of `picket`.
        service: which.
    """

    def __init__(
        self, config: Path, *, program: Path | None = None, service: str = "watch"
    ) -> None:
        picket = ["-m", "appliance"] if program is None else [str(program)]
        self.child = subprocess.Popen(
            [sys.executable, *picket, "run", service, "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"PICKET_LOG": "INFO"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        if self.child.stderr is not None:
            self.child.stderr.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.child.pid

    def kill(self) -> None:
        """As a crash does."""
        self.child.kill()
        self.child.wait()

    def end(self) -> int:
        """Ask it to end; returns its exit status."""
        self.child.terminate()
        return self.child.wait(LONG_S)

    def errors(self) -> str:
        """What it said, once it has ended."""
        assert self.child.stderr is not None
        return self.child.stderr.read().decode()
