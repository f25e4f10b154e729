"""A raw image as small as they come: a partition table and one empty FAT, with its .sha256."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
from pathlib import Path

MTOOLS = shutil.which("mcopy") and shutil.which("mformat")
START = 2048 * 512


def hashed(path: Path) -> Path:
    """Write the .sha256 that belongs beside an image."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    return path


def raw_image(path: Path) -> Path:
    """Make it; the FAT only where there is mtools."""
    table = bytearray(512)
    table[446:462] = struct.pack("<BBBBBBBBII", 0x80, 0, 0, 0, 0x0C, 0, 0, 0, 2048, 16384)
    table[510:] = b"\x55\xaa"
    with path.open("wb") as file:
        file.write(table)
        file.truncate(START + 16384 * 512)
    if MTOOLS:
        subprocess.run(
            [str(shutil.which("mformat")), "-i", f"{path}@@{START}", "-T", "16384", "::"],
            check=True,
            env=os.environ | {"MTOOLS_SKIP_CHECK": "1"},
        )
    return hashed(path)
