"""A TCP relay between node and controller, with a cable to pull and answers to lose."""

from __future__ import annotations

import contextlib
import socket
import threading
from enum import Enum, auto

_CHUNK_BYTES = 64 * 1024
_LOOK_S = 0.2


class Cable(Enum):
    """What the cable does."""

    WHOLE = auto()
    CUT = auto()
    """Connections end, and new ones are turned away."""
    DEAF = auto()
    """Questions arrive, answers do not."""
    FROZEN = auto()
    """Nothing arrives, and nobody is told."""


class Proxy:
    """Listens at a free port of this machine and passes on to `target`.

    Attributes:
        port: where it listens.
        cable: set it at any time.
        answered_bytes: passed from `target` so far.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(_LOOK_S)
        self.port: int = self._listener.getsockname()[1]
        self.answered_bytes = 0
        self._cable = Cable.WHOLE
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def cable(self) -> Cable:
        return self._cable

    @cable.setter
    def cable(self, cable: Cable) -> None:
        self._cable = cable
        if cable is Cable.CUT:
            self.hang_up()

    def hang_up(self) -> None:
        """End the connections that there are."""
        with self._lock:
            open_now = tuple(self._open)
        for end in open_now:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        self._stop.set()
        self._thread.join()
        self._listener.close()
        self.hang_up()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            far: socket.socket | None = None
            if self._cable is not Cable.CUT:
                with contextlib.suppress(OSError):  # the controller is being restarted
                    far = socket.create_connection(("127.0.0.1", self._target), timeout=2.0)
            if far is None:
                near.close()
                continue
            for end in (near, far):
                end.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:  # noqa: FBT001 - a thread's argument
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK_BYTES):
                if self._cable is Cable.FROZEN or (answers and self._cable is Cable.DEAF):
                    continue  # TLS does not forgive this: the connection is lost, as it should be
                sink.sendall(chunk)
                self.answered_bytes += len(chunk) if answers else 0
        with self._lock:
            self._open -= {source, sink}
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
