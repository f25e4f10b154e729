"""How much memory this process has, and how much there is to have, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")


def rss_bytes(proc: Path = PROC) -> int:
    """Resident now (VmRSS)."""
    return _status_bytes(proc, "VmRSS")


def peak_rss_bytes(proc: Path = PROC) -> int:
    """Most ever resident since the process began (VmHWM)."""
    return _status_bytes(proc, "VmHWM")


def available_bytes(proc: Path = PROC) -> int:
    """What all processes together can still get without swapping (MemAvailable)."""
    return _line_bytes(proc / "meminfo", "MemAvailable")


def _status_bytes(proc: Path, key: str) -> int:
    return _line_bytes(proc / "self" / "status", key)


def _line_bytes(path: Path, key: str) -> int:
    """One line of a file in which the kernel writes KiB and calls them kB."""
    for line in path.read_text(encoding="ascii", errors="replace").split("\n"):
        name, _, amount = line.partition(":")
        if name == key:
            return int(amount.split()[0]) * 1024
    raise OSError(f"{path}: has no {key}")
