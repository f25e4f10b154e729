"""How much memory this process has, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")


def rss_bytes(proc: Path = PROC) -> int:
    """Resident now (VmRSS)."""
    return _status_bytes(proc, "VmRSS")


def peak_rss_bytes(proc: Path = PROC) -> int:
    """Most ever resident since the process began (VmHWM)."""
    return _status_bytes(proc, "VmHWM")


def _status_bytes(proc: Path, key: str) -> int:
    """One line of /proc/self/status, which the kernel writes in KiB and calls kB."""
    for line in (
        (proc / "self" / "status").read_text(encoding="ascii", errors="replace").split("\n")
    ):
        name, _, amount = line.partition(":")
        if name == key:
            return int(amount.split()[0]) * 1024
    raise OSError(f"{proc}/self/status: has no {key}")
