"""Partitions of a raw image: an MBR and its chain of extended ones, read without a tool."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_SECTOR = 512
_EXTENDED = frozenset({0x05, 0x0F})


@dataclass(frozen=True, slots=True)
class Part:
    """Where a partition lies, in bytes."""

    offset: int
    size: int


def parts(image: Path) -> dict[int, Part]:
    """Partitions by number, as Linux counts them: 1 to 4, logical ones from 5."""
    found: dict[int, Part] = {}
    with image.open("rb") as file:

        def table(sector: int) -> list[tuple[int, int, int]]:
            file.seek(sector * _SECTOR + 446)
            entries = [file.read(16) for _ in range(4)]
            return [(e[4], *struct.unpack_from("<II", e, 8)) for e in entries]

        for number, (kind, start, size) in enumerate(table(0), 1):
            if kind:
                found[number] = Part(start * _SECTOR, size * _SECTOR)
            if kind in _EXTENDED:
                base, at, logical = start, start, 5
                while True:
                    (_, inner, inner_size), (_, following, _), *_ = table(at)
                    found[logical] = Part((at + inner) * _SECTOR, inner_size * _SECTOR)
                    if not following:
                        break
                    at, logical = base + following, logical + 1
    return found
