"""A card that was in use, read as bytes by who found it: all partitions, freed blocks as well.

The search is shown to find what is there: the list as it travels, which is sealed, and the private
keys of the node. Those it finds in the clear, as there is nothing in an emulated board to encrypt
the data partition to; they open no list and no alert.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from appliance.types import Vector
from appliance.watchlist.files import BundleFile, read_key
from appliance.watchlist.pieces import TAG_BYTES, Layout, Sealer
from tests.image.card.host import SUBJECT
from tests.image.card.report import Report

_ENOUGH = 24
"""Bytes of a needle: nothing is equal to so many by chance, and rarely does a block end in them."""
_BLOCK = 16 << 20


def searched(image: Path, *, token: str, bundle: Path, report: Report) -> None:
    """Look for what must not be there, and for what must be.

    Args:
        image: of the card; no machine uses it.
        token: that the node joined by, hexadecimal.
        bundle: the list that was deployed; its key lies beside it.
        report: gets the points.
    """
    with BundleFile(bundle) as opened:
        key = bytes(read_key(bundle.with_suffix(".key"), opened.header))
        sealed = [opened.piece(n) for n in range(opened.header.pieces)]
        clear, vectors = _opened(opened, sealed, key)
    secret = _needles(vectors) | {
        "join token": token.encode(),
        "join token, as bytes": bytes.fromhex(token),
        "subject": SUBJECT.encode(),
        "the list's key": key,
        "the list's key, as text": key.hex().encode(),
    }
    control = {f"sealed piece {n}": piece[:_ENOUGH] for n, piece in enumerate(sealed)}
    control["a private key"] = b"-----BEGIN PRIVATE KEY-----"
    found = _found(image, secret | control)
    leaks = sorted(found & secret.keys())
    seen = (
        f"{len(secret)} needles: {', '.join(leaks) or 'none'} found; {_data(image) >> 20} MiB read"
    )
    report.point("no token, no template, no name and no key of a list is on the card",
                 so=not leaks, seen=seen)  # fmt: skip
    pieces = len(found & {name for name in control if name.startswith("sealed")})
    inside = {name for name, needle in secret.items() if needle in clear}
    wanted = {"subject", *(f"template {n}, float16" for n in range(len(vectors)))}
    # Not every piece: of columns that this node cannot search it fetches none.
    so = pieces > 0 and "a private key" in found and wanted <= inside
    seen = (
        f"{pieces} of {len(sealed)} sealed pieces and private keys on the card;"
        f" {len(inside)} needles in the opened list"
    )
    report.point("the same search finds the sealed list and the node's keys there, and the needles"
                 " in the opened list", so=so, seen=seen)  # fmt: skip


def _opened(bundle: BundleFile, sealed: list[bytes], key: bytes) -> tuple[bytes, list[Vector]]:
    """All that is in a list, and its templates."""
    header, layout = bundle.header, Layout(bundle.header)
    sealer = Sealer(key, list_id=header.list_id, version=header.version, pieces=header.pieces)
    everything, rows = b"", []
    for number, piece in enumerate(sealed):
        into = bytearray(len(piece) - TAG_BYTES)
        sealer.open_into(number, piece, memoryview(into))
        everything += into
        place = layout.span(number).column
        if place is not None:
            found = np.frombuffer(into, "<f2").reshape(-1, header.columns[place].dim)
            rows += list(found.astype(np.float32))
    return everything, rows


def _needles(vectors: list[Vector]) -> dict[str, bytes]:
    """A template in every form that this program has for one."""
    found = {}
    for number, vector in enumerate(vectors):
        for kind, name in (("<f2", "float16"), ("<f4", "float32"), ("<f8", "float64")):
            found[f"template {number}, {name}"] = vector.astype(kind).tobytes()[:_ENOUGH]
        for scale, name in ((127.0, "unit"), (127.0 / np.abs(vector).max(), "full")):
            quantised = np.rint(vector * scale).astype(np.int8).tobytes()[:_ENOUGH]
            found[f"template {number}, int8 to {name} scale"] = quantised
    return found


def _found(image: Path, needles: dict[str, bytes]) -> set[str]:
    """Those that are in it."""
    found: set[str] = set()
    longest = max(map(len, needles.values()))
    overlap = b""
    for block in _blocks(image):
        text = overlap + block
        found |= {name for name, n in needles.items() if name not in found and n in text}
        overlap = block[-longest:]
    return found


def _blocks(image: Path) -> Iterator[bytes]:
    """What the file holds, without its holes."""
    with image.open("rb") as card:
        at, end = 0, image.stat().st_size
        while at < end:
            try:
                at = os.lseek(card.fileno(), at, os.SEEK_DATA)
            except OSError:  # nothing but a hole follows
                return
            stop = os.lseek(card.fileno(), at, os.SEEK_HOLE)
            while at < stop:
                block = os.pread(card.fileno(), min(_BLOCK, stop - at), at)
                at += len(block)
                yield block


def _data(image: Path) -> int:
    return sum(map(len, _blocks(image)))
