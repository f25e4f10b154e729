"""All three services as children of one process, where there is no systemd to run them.

`picket run` without a name: development machines and the demo. It keeps systemd's promise in
small: a service that dies is started again, and one that keeps dying ends the node with an error.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from appliance.errors import ServiceError
from appliance.services.process import stop_on_signals

log = logging.getLogger(__name__)

ORDER = ("indicator", "link", "watch")
"""Started in this order, stopped in the reverse: who answers outlives who asks."""
RESTARTS, WITHIN_S = 5, 120.0
"""A service that cannot start takes seconds to say so; see StartLimitBurst in systemd/."""
_RESTART_S = 1.0
_LOOK_S = 0.1
_STOP_S = 15.0


class Service:
    """One service as a child process, started again when it dies."""

    def __init__(self, name: str, config: Path) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "appliance", "run", name, "--config", str(config)]
        self._starts_s: deque[float] = deque(maxlen=RESTARTS)
        self._child = self._start()

    def look(self) -> int | None:
        """Whether it has ended as it should (0); restarts it if it has died.

        Raises:
            ServiceError: it has died too often.
        """
        status = self._child.poll()
        if status in (None, 0):
            return status
        log.error("%s ended with status %d", self.name, status)
        if len(self._starts_s) == RESTARTS and time.monotonic() - self._starts_s[0] < WITHIN_S:
            raise ServiceError(
                f"{self.name} ended {RESTARTS} times within {WITHIN_S:.0f} s, last with {status}"
            )
        time.sleep(_RESTART_S)
        self._child = self._start()
        return None

    def stop(self) -> None:
        """Ask it to end; insist after a while."""
        if self._child.poll() is None:
            self._child.terminate()
        try:
            self._child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            log.error("%s did not end within %.0f s and is killed", self.name, _STOP_S)  # noqa: TRY400 - the line says it all
            self._child.kill()
            self._child.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self._starts_s.append(time.monotonic())
        # A session of its own: Ctrl-C reaches this process, which stops them in order.
        return subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)


def run_all(config: Path) -> None:
    """Run the node until SIGTERM or SIGINT, or until the watch service has seen everything.

    Args:
        config: path of node.toml, which has been checked already.

    Raises:
        ServiceError: a service keeps dying.
    """
    stop = threading.Event()
    services: list[Service] = []
    with stop_on_signals(stop):
        try:
            services.extend(Service(name, config) for name in ORDER)
            while not stop.wait(_LOOK_S):
                ended = {service.name: service.look() for service in services}
                if ended["watch"] == 0:  # a recording has been played to its end
                    return
        finally:
            for service in reversed(services):
                service.stop()
