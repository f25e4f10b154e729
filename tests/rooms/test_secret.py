"""Secret memory cannot be read from outside, and a list that was wiped is nowhere any more.

The test is the attacker: it reads the memory of a child process, as a debugger would, and looks
for templates that it knows.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.errors import SecretMemoryError
from appliance.system.secret import KINDS, MEMFD_SECRET, MLOCK, ORDINARY, SecretBuffer
from appliance.watchlist.build import Facts, Templates, build
from appliance.watchlist.bundle import WHOLE, sign
from appliance.watchlist.grant import Terms, seal_grant
from appliance.watchlist.stamp import Action, Stamp, make_stamp
from appliance.wire import Offer


def to_be_had(kind: str) -> bool:
    try:
        SecretBuffer(4096, kinds=(kind,)).wipe()
    except SecretMemoryError:
        return False
    return True


@pytest.fixture(params=[*KINDS, ORDINARY])
def kind(request: pytest.FixtureRequest) -> str:
    if not to_be_had(request.param):
        pytest.skip(f"{request.param} is not to be had here")
    return str(request.param)


def test_it_is_zeroed_writable_and_as_long_as_asked(kind: str) -> None:
    secret = SecretBuffer(5000, kinds=(kind,))
    assert secret.kind == kind
    assert len(secret.view) == 5000
    assert not any(secret.view)
    secret.view[:3] = b"abc"
    assert bytes(secret.view[:4]) == b"abc\0"
    secret.wipe()


def test_a_wipe_overwrites_what_views_still_show(kind: str) -> None:
    secret = SecretBuffer(5000, kinds=(kind,))
    array = np.frombuffer(secret.view, np.float32)
    array.fill(1.5)
    secret.wipe()
    assert not array.any()
    secret.wipe()
    assert len(secret.view) == 0


def test_the_best_that_is_to_be_had_is_taken() -> None:
    best = [kind for kind in KINDS if to_be_had(kind)]
    if not best:
        pytest.skip("no secret memory is to be had here")
    assert SecretBuffer(1).kind == best[0]


def test_what_is_refused_is_said_and_ordinary_memory_is_taken_only_if_allowed() -> None:
    too_much = 2**62
    with pytest.raises(
        SecretMemoryError, match=rf"{too_much} bytes of secret memory: memfd_secret"
    ):
        SecretBuffer(too_much)
    with pytest.raises(SecretMemoryError, match="16 bytes of secret memory"):
        SecretBuffer(16, kinds=())
    assert SecretBuffer(16, kinds=(), allow_ordinary=True).kind == ORDINARY


CHILD = """
import base64, sys
import msgspec
import numpy as np
from appliance.system.secret import SecretBuffer
from appliance.types import FalseMatch
from appliance.watchlist.admission import Model
from appliance.watchlist.trusted import TrustedWatchlist
from appliance.wire import Offer

def say(*words):
    print(*words, flush=True)

def hear():
    return base64.b64decode(sys.stdin.readline())

kind, authority, online = sys.argv[1], bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])
table = FalseMatch((-1.0, 0.3), (1.0, 1e-4), 0.3, 1e-4, 40.0, 1000, 10**7, "made up")
door = TrustedWatchlist(
    node="cam-017", boot=b"b" * 16, fleet="market", authorities=[authority], signatures=1,
    online_key=online, models={"whole": Model("m", 192, table)},
    allocate=lambda nbytes: SecretBuffer(nbytes, kinds=(kind,)),
)
say(door.grant_key_public.hex(), door.new_nonce(now_ns=0).hex())
wanted = door.offer(msgspec.msgpack.decode(hear(), type=Offer), now_ns=0)
for index in wanted.pieces:
    door.piece(index, hear(), now_ns=0)
probes = np.random.default_rng(99).standard_normal((3, 192), dtype=np.float32)
matches = door.current.nearest_many(probes)
del probes
say("open", matches[0].subject)
hear()
door.wipe()
say("wiped")
hear()
"""


class Watch:
    """A watch service in a process of its own, and what an attacker can read of it."""

    def __init__(self, kind: str) -> None:
        self.vectors = np.random.default_rng(1).standard_normal((500, 192), dtype=np.float32)
        self.vectors /= np.linalg.norm(self.vectors, axis=1, keepdims=True)
        self.key = hashlib.sha256(b"content key of test_secret").digest()
        self._authority, self._online = (Ed25519PrivateKey.generate() for _ in range(2))
        public = [k.public_key().public_bytes_raw().hex() for k in (self._authority, self._online)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, kind, *public],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def hear(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().split()

    def say(self, what: bytes = b"") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(base64.b64encode(what) + b"\n")
        self.process.stdin.flush()

    def open(self) -> None:
        grant_key, nonce = (bytes.fromhex(word) for word in self.hear())
        pieces: list[bytes] = []
        facts = Facts("l", 1, "market", 0, 0, 10**15, "day", "basis", "officer", 0.01, 0.3)
        columns = {WHOLE: Templates("m", [1] * 500, self.vectors)}
        head, digests = build(
            facts,
            [f"s{i}" for i in range(500)],
            columns,
            content_key=self.key,
            write=pieces.append,
        )
        head = sign(head, self._authority)
        sha256 = hashlib.sha256(head).digest()
        stamp = Stamp(Action.GRANT, "cam-017", nonce, 1000, "l", 1, sha256, "day", 60)
        terms = Terms("cam-017", b"b" * 16, nonce, sha256, "day", 60)
        grant = seal_grant(self.key, to=grant_key, terms=terms)
        offer = Offer(make_stamp(stamp, self._online), head, digests, grant)
        self.say(msgspec.msgpack.encode(offer))
        for piece in pieces:
            self.say(piece)
        assert self.hear()[0] == "open"

    def wipe(self) -> None:
        self.say()
        assert self.hear() == ["wiped"]

    def copies(self) -> dict[str, int]:
        """How often rows 3 and 400 lie open in its memory, in either form, and the content key."""
        narrow = self.vectors[[3, 400]].astype("<f2")
        wide = narrow.astype(np.float32)
        wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, np.newaxis]
        # 16 numbers from the middle: a copy of a part is found as well as one of the whole.
        sought = {
            "float16": [row[90:106].tobytes() for row in narrow],
            "float32": [row[90:106].tobytes() for row in wide],
            "key": [self.key],
        }
        memory = b"\xff".join(self._mappings())
        return {
            name: sum(memory.count(needle) for needle in needles)
            for name, needles in sought.items()
        }

    def _mappings(self) -> Iterator[bytes]:
        """All that the kernel lets a debugger read."""
        proc = Path(f"/proc/{self.process.pid}")
        with (proc / "mem").open("rb", buffering=0) as memory:
            for line in (proc / "maps").read_text().splitlines():
                found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
                if found is None:
                    continue
                first, last = (int(end, 16) for end in found.groups())
                try:
                    memory.seek(first)
                    yield memory.read(last - first)
                except OSError:
                    # Secret memory answers so, and the kernel's own pages.
                    continue


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_open_templates_lie_in_secret_memory_alone_and_after_a_wipe_nowhere(kind: str) -> None:
    if not to_be_had(kind):
        pytest.skip(f"{kind} is not to be had here")
    watch = Watch(kind)
    with watch.process:
        try:
            watch.open()
            while_open = watch.copies()
            watch.wipe()
            after = watch.copies()
            watch.say()
        finally:
            watch.process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
    assert watch.process.returncode == 0
    assert after == {"float16": 0, "float32": 0, "key": 0}
    # Locked memory can be read by a debugger, so the search is seen to find what is there;
    # memfd_secret cannot, not even by root.
    rows = {MLOCK: 2, MEMFD_SECRET: 0}[kind]
    assert while_open == {"float16": 0, "float32": rows, "key": 0}


def test_wiped_memory_goes_back_to_the_kernel_with_its_last_view() -> None:
    if not to_be_had(MEMFD_SECRET):
        pytest.skip("memfd_secret is not to be had here")

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("secretmem")

    before = mapped()
    secret = SecretBuffer(5000, kinds=(MEMFD_SECRET,))
    array = np.frombuffer(secret.view, np.uint8)
    secret.wipe()
    assert mapped() == before + 1
    del array
    assert mapped() == before
