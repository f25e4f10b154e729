"""What all three services are as processes: signals, the watchdog's heartbeat, private sockets."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from appliance.system.sdnotify import Notifier
from appliance.system.worker import Worker

log = logging.getLogger(__name__)

_CONNECT_S = 3.0
BEAT_S = 1.0
"""Between two looks at the workers; far below WatchdogSec in systemd/*.service."""
_READY_S = 0.05
"""The same until they have all begun: others wait for that."""

Notify = Callable[[str], None]
"""Tells systemd one line, such as WATCHDOG=1; does nothing where there is no systemd."""


class Heart:
    """Feeds the watchdog for as long as every worker makes progress, and not longer.

    READY=1 is sent when each has made its first step, WATCHDOG=1 whenever each has made another
    since the last one: a call into a library that never returns becomes a restart.

    Args:
        workers: those that must make progress.
        stop: ends a wait at once.
        status: one line for `systemctl status` and `picket doctor`.
        notify: tells systemd; by default where the environment says that it listens.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        stop: threading.Event,
        *,
        notify: Notify | None = None,
        status: Callable[[], str] | None = None,
    ) -> None:
        self._workers, self._stop = tuple(workers), stop
        self._notify = notify or Notifier.from_environment()
        self._status, self._said = status, ""
        self._ready = False
        self._before = tuple(0 for _ in self._workers)

    def worker(self) -> Worker:
        """The thread that beats."""
        return Worker("heart", self.step, self._stop)

    def step(self) -> None:
        """Look once, then wait: a second, or less before all have begun."""
        beats = tuple(worker.beats for worker in self._workers)
        if all(now > then for now, then in zip(beats, self._before, strict=True)):
            self._before = beats
            if not self._ready:
                self._ready = True
                self._notify("READY=1")
                log.info("ready")
            self._notify("WATCHDOG=1")
        if self._status is not None and (line := self._status()) != self._said:
            self._said = line
            self._notify(f"STATUS={line}")
        self._stop.wait(BEAT_S if self._ready else _READY_S)


def when_stopped(stop: threading.Event, action: Callable[[], None]) -> None:
    """Do something as soon as `stop` is set: end a question that would be waited for."""

    def wait() -> None:
        stop.wait()
        action()

    threading.Thread(target=wait, name="when-stopped", daemon=True).start()


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`, until the end of the block."""

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def private_socket() -> Iterator[None]:
    """What is made in this block is for its user and group only. Before any other thread runs."""
    before = os.umask(0o117)
    try:
        yield
    finally:
        os.umask(before)


def listens(path: Path) -> bool:
    """Whether a process listens at a socket of the node."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dialled:
        dialled.settimeout(_CONNECT_S)
        try:
            dialled.connect(str(path))
        except OSError:
            return False
    return True
