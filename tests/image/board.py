"""The scripts that open the data partition, and boards of ours to open it on."""

from __future__ import annotations

import importlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).resolve().parents[2] / "image-build/overlay/usr/lib/picket"
SWTPM = shutil.which("swtpm")


def script(name: str) -> ModuleType:
    """A program of the image, as a module; they import each other by bare names."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder is the image's
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))
        sys.dont_write_bytecode = before


class File:
    """A board that is a file of 32 bytes: the fake among the sources."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def secret(self) -> bytes | None:
        """See board_secret.Source."""
        board = script("board_secret")
        if not self._path.exists():
            return None
        rows = self._path.read_bytes()
        if len(rows) != board.SIZE:
            raise board.BoardSecretError(f"{self._path}: {len(rows)} bytes, not {board.SIZE}")
        return rows if rows.strip(b"\0") else None


class Tpm:
    """An emulated TPM, with a state of its own, that keeps listening.

    Args:
        folder: gets its state; another folder is another TPM.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.path = folder, folder / "sock"

    @contextmanager
    def on(self) -> Iterator[None]:
        """Switched on, for one connection."""
        self.path.unlink(missing_ok=True)
        process = subprocess.Popen(
            [
                str(SWTPM), "socket", "--tpm2", "--server", f"type=unixio,path={self.path}",
                "--tpmstate", f"dir={self._folder}", "--flags", "not-need-init,startup-clear",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline_s = time.monotonic() + 20
            while not self.path.exists():
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise RuntimeError(f"swtpm does not listen: {process.returncode}")
                time.sleep(0.01)
            yield
        finally:
            process.kill()
            process.wait()

    @staticmethod
    def connect(path: Path) -> int:
        """As the kernel's device is opened."""
        there = socket.socket(socket.AF_UNIX)
        there.connect(str(path))
        return there.detach()
