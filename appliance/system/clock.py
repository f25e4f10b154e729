"""Time: the machine's, and one that tests move by hand."""

from __future__ import annotations

import ctypes
import threading
import time
from pathlib import Path

TIMESYNCD_EVIDENCE = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd makes this file at its first synchronisation after boot."""


class _Timex(ctypes.Structure):
    """The head of `struct timex` (man 2 adjtimex); the rest is reserved so that it fits."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )


_STA_UNSYNC = 0x0040
_REFUSED = -1


class SystemClock:
    """The machine's clocks.

    The wall clock counts as synchronised when the kernel says so (every time daemon clears its
    STA_UNSYNC flag, and the kernel sets it again when they go silent) or, where a sandbox forbids
    asking the kernel (systemd's ProtectClock=), when `evidence` exists.

    Args:
        evidence: a file that a time daemon makes once it is synchronised.
    """

    def __init__(self, *, evidence: Path = TIMESYNCD_EVIDENCE) -> None:
        self._evidence = evidence
        self._libc = ctypes.CDLL(None, use_errno=True)

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def utc_ns(self) -> int | None:
        return time.time_ns() if self._synchronised() else None

    def _synchronised(self) -> bool:
        timex = _Timex(modes=0)  # 0 only reads, which needs no privilege
        answer = self._libc.adjtimex(ctypes.byref(timex))
        if answer != _REFUSED and not timex.status & _STA_UNSYNC:
            return True
        return self._evidence.exists()


class SimulatedClock:
    """Stands still until `advance`. Thread-safe.

    Args:
        boot_ns: CLOCK_BOOTTIME at the beginning.
        utc_ns: wall clock at the beginning, None while it is not synchronised.
    """

    def __init__(self, *, boot_ns: int = 1_000_000_000, utc_ns: int | None = None) -> None:
        self._lock = threading.Lock()
        self._boot_ns, self._utc_ns = boot_ns, utc_ns

    def boot_ns(self) -> int:
        with self._lock:
            return self._boot_ns

    def utc_ns(self) -> int | None:
        with self._lock:
            return self._utc_ns

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: 0 or more.

        Raises:
            ValueError: time would step back.
        """
        if seconds < 0:
            raise ValueError(f"cannot advance by {seconds} s: CLOCK_BOOTTIME never steps back")
        with self._lock:
            self._boot_ns += round(seconds * 1e9)
            if self._utc_ns is not None:
                self._utc_ns += round(seconds * 1e9)

    def synchronise(self, utc_ns: int | None) -> None:
        """Set the wall clock, or lose it with None."""
        with self._lock:
            self._utc_ns = utc_ns
