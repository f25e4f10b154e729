"""How long a node takes to open a list, and how much memory: everything that it checks included.

    python -m appliance.evaluation.open_bench --templates 100000

A list of made-up vectors is built, signed, stamped and granted as a controller does it, then
handed to the node's own TrustedWatchlist piece by piece: neither network nor card is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from appliance.errors import EvaluationError
from appliance.system.memory import peak_rss_bytes, rss_bytes
from appliance.system.secret import SecretBuffer
from appliance.types import FalseMatch
from appliance.vision.reader import COLUMNS
from appliance.watchlist.admission import Model
from appliance.watchlist.build import Facts, Templates, build
from appliance.watchlist.bundle import WHOLE, sign
from appliance.watchlist.grant import Terms, seal_grant
from appliance.watchlist.stamp import Action, Stamp, make_stamp
from appliance.watchlist.trusted import TrustedWatchlist
from appliance.wire import Offer

_DIM = 192
_NODE, _FLEET, _LIST, _MODEL = "bench", "bench", "bench", "bench@0"
_LEASE_S = 3600
_COLUMNS = (WHOLE, *COLUMNS)
_FORGET_PEAK = Path("/proc/self/clear_refs")
"""Writing 5 makes the peak what is resident now: man 5 proc."""
_TABLE = FalseMatch(
    similarity=(0.0, 0.5),
    rate=(0.5, 1e-4),
    tail_similarity=0.5,
    tail_rate=1e-4,
    tail_slope=40.0,
    probes=10_000,
    comparisons=10**9,
    source="made up: nothing is matched here",
)


@dataclass(frozen=True, slots=True)
class Opening:
    """One list, opened.

    Attributes:
        templates: in each column; a photograph gives one to each.
        columns: whole faces, and one for each part that may be hidden.
        mib: of ciphertext.
        wall_s, cpu_s: from the offer until the list is in use.
        peak_more_mib: resident memory at its most, above what there was before the offer.
        memory: kind of memory that the open templates are in.
    """

    templates: int
    columns: int
    mib: float
    wall_s: float
    cpu_s: float
    peak_more_mib: float
    memory: str


def bench(templates: int) -> Opening:
    """Build a list and open it.

    Args:
        templates: in each column of the list, one per subject.
    """
    authority, online = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    content_key, boot = secrets.token_bytes(32), secrets.token_bytes(16)
    head, digests, pieces = _list(templates, content_key, authority)
    kinds: set[str] = set()

    def allocate(nbytes: int) -> SecretBuffer:
        # A machine whose limit on locked memory is low is measured as well, and says so.
        buffer = SecretBuffer(nbytes, allow_ordinary=True)
        kinds.add(buffer.kind)
        return buffer

    trusted = TrustedWatchlist(
        node=_NODE,
        boot=boot,
        fleet=_FLEET,
        authorities=[authority.public_key().public_bytes_raw()],
        signatures=1,
        online_key=online.public_key().public_bytes_raw(),
        models=dict.fromkeys(_COLUMNS, Model(_MODEL, _DIM, _TABLE)),
        allocate=allocate,
    )
    _FORGET_PEAK.write_text("5", encoding="ascii")
    before, now_ns = rss_bytes(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    nonce = trusted.new_nonce(now_ns=now_ns)
    head_sha256 = hashlib.sha256(head).digest()
    terms = Terms(_NODE, boot, nonce, head_sha256, "bench", _LEASE_S)
    stamp = Stamp(
        action=Action.GRANT,
        node=_NODE,
        nonce=nonce,
        now_utc_ms=time.time_ns() // 1_000_000,
        list_id=_LIST,
        version=1,
        head_sha256=head_sha256,
        deployment="bench",
        lease_s=_LEASE_S,
    )
    grant = seal_grant(content_key, to=trusted.grant_key_public, terms=terms)
    offer = Offer(make_stamp(stamp, online), head, digests, grant)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    wanted = trusted.offer(offer, now_ns=now_ns)
    in_use = [trusted.piece(index, pieces[index], now_ns=now_ns) for index in wanted.pieces]
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    if not in_use[-1]:
        raise EvaluationError("all pieces came, and the list is not in use")
    return Opening(
        templates=templates,
        columns=len(_COLUMNS),
        mib=sum(map(len, pieces)) / 2**20,
        wall_s=wall_s,
        cpu_s=cpu_s,
        peak_more_mib=max(0, peak_rss_bytes() - before) / 2**20,
        memory=" and ".join(sorted(kinds)),
    )


def _list(
    templates: int, content_key: bytes, authority: Ed25519PrivateKey
) -> tuple[bytes, bytes, list[bytes]]:
    vectors = np.random.default_rng(0).standard_normal((templates, _DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    now_ms = time.time_ns() // 1_000_000
    facts = Facts(
        list_id=_LIST,
        version=1,
        fleet=_FLEET,
        created_utc_ms=now_ms,
        not_before_utc_ms=now_ms,
        expires_utc_ms=now_ms + 86_400_000,
        deployment="bench",
        legal_basis="none",
        officer="none",
        target_fpir=0.01,
        threshold_floor=0.3,
    )
    pieces: list[bytes] = []
    head, digests = build(
        facts,
        [f"s{n}" for n in range(templates)],
        {name: Templates(_MODEL, [1] * templates, vectors) for name in _COLUMNS},
        content_key=content_key,
        write=pieces.append,
    )
    return sign(head, authority), digests, pieces


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="How long a node takes to open a list.")
    parser.add_argument("--templates", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    arguments = parser.parse_args(argv)
    opened = bench(arguments.templates)
    Console().print(
        f"a list of {opened.templates:,} x {opened.columns} templates ({opened.mib:.1f} MiB) opened"
        f" in {opened.wall_s:.2f} s ({opened.cpu_s:.2f} s of CPU), {opened.peak_more_mib:.0f} MiB"
        f" more at most, templates in {opened.memory} memory"
    )
    if arguments.out:
        arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(opened))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
