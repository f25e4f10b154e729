"""What a service tells systemd: one datagram per line, to the socket named by NOTIFY_SOCKET.

Leaves: READY=1, WATCHDOG=1, STATUS=... (man 3 sd_notify). Nothing comes back, and where there is
no systemd nothing is sent. Who may feed the watchdog, and when, is services/process.py's business.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

SEND_S = 1.0
"""systemd reads its socket at once or hangs; a hanging systemd must not hang its services."""


class Notifier:
    """Tells systemd. Thread-safe: each call is one datagram.

    Args:
        address: of the socket: a path, or an abstract name that begins with "@"; None for nobody.
        watchdog_s: how long systemd waits between two WATCHDOG=1, None for ever.
    """

    def __init__(self, address: str | None, *, watchdog_s: float | None = None) -> None:
        self._address = address
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """As systemd told this process; the watchdog only if it was meant for this process.

        Raises:
            OSError: a variable is not what systemd writes.
        """
        microseconds = environment.get("WATCHDOG_USEC")
        pid = environment.get("WATCHDOG_PID")
        try:
            watched = microseconds is not None and (pid is None or int(pid) == os.getpid())
            watchdog_s = int(microseconds) / 1e6 if watched and microseconds else None
        except ValueError as e:
            raise OSError(f"WATCHDOG_USEC={microseconds}, WATCHDOG_PID={pid}: not numbers") from e
        return cls(environment.get("NOTIFY_SOCKET") or None, watchdog_s=watchdog_s)

    def __call__(self, line: str) -> None:
        """Send one assignment, such as "WATCHDOG=1".

        Raises:
            OSError: systemd's socket is gone or full: the machine is not in order.
        """
        if self._address is None:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(SEND_S)
            sender.sendto(line.encode(), address)

    def ready(self) -> None:
        """The service does its work from now on."""
        self("READY=1")

    def watchdog(self) -> None:
        """There was progress."""
        self("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self(f"STATUS={text.splitlines()[0] if text else ''}")

    def stopping(self) -> None:
        """The service is ending on purpose."""
        self("STOPPING=1")
