"""NNG's own warnings, told once and counted: why a handshake failed stands nowhere else.

pynng neither raises nor logs why a connection was refused; NNG's library says it to a logger that
is one for the whole process. Here that logger is ours. What is told is NNG's and Mbed TLS's own
text, never a stranger's bytes.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import cache

log = logging.getLogger(__name__)

_WARNING = 4
_AGAIN_S = 60.0
_KINDS_MAX = 256
_HANDSHAKE = b"NNG-TLS-HANDSHAKE"
_HEARD = {
    _HANDSHAKE: "refused",
    b"NNG-RCVMAX": "refused",
    b"NNG-ACCEPT-FAIL": "not accepted",
}
_TOLD_ALREADY = "Peer could not be authenticated"
"""What NNG says after a handshake that it has told of."""


class Tally:
    """Counts what went wrong by its reason; tells each reason at once, then once a minute.

    Thread-safe.

    Attributes:
        last: the newest reason for which a handshake failed, "" before the first.
    """

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._told_s: dict[str, float] = {}
        self._handshakes = 0
        self.last = ""

    @property
    def handshakes(self) -> int:
        """TLS handshakes that failed in this process, whichever end was to blame."""
        return self._handshakes

    def counts(self) -> dict[str, int]:
        """How often, by reason."""
        with self._lock:
            return dict(self._counts)

    def forget(self) -> None:
        """Tell every reason again; the counts stay."""
        with self._lock:
            self._told_s.clear()

    def add(self, kind: bytes, text: bytes) -> None:
        """One line of NNG's."""
        what = _HEARD.get(kind)
        # Only what follows the last colon is one of a fixed number of reasons: before it stand
        # addresses and numbers.
        reason = text.decode("ascii", "replace").rpartition(": ")[2]
        if kind == b"NNG-RCVMAX":
            reason = "a message longer than is received"
        if what is None or reason == _TOLD_ALREADY:
            return
        with self._lock:
            if reason not in self._counts and len(self._counts) >= _KINDS_MAX:
                reason = "other"
            self._counts[reason] += 1
            if kind == _HANDSHAKE:
                self._handshakes += 1
                self.last = reason
            told = self._due(reason)
        if told:
            log.warning("a connection was %s: %s (%d so far)", what, reason, told)

    def _due(self, reason: str) -> int:
        """The count to tell now, or 0."""
        now_s = self._now_s()
        if now_s - self._told_s.get(reason, -math.inf) < _AGAIN_S:
            return 0
        self._told_s[reason] = now_s
        return self._counts[reason]


@cache
def overhear() -> Tally:
    """This process's tally; NNG speaks to it from the first call on."""
    import pynng._nng as nng

    library = ctypes.CDLL(nng.__file__)
    logger = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p)
    tally = Tally()

    def heard(_level: int, _facility: int, kind: bytes | None, text: bytes | None) -> None:
        tally.add(kind or b"", text or b"")

    library.nng_log_set_logger.argtypes = [ctypes.c_void_p]
    callback = logger(heard)
    library.nng_log_set_logger(ctypes.cast(callback, ctypes.c_void_p))
    library.nng_log_set_level(_WARNING)

    def silence() -> None:
        # Keeps `callback` alive until here: afterwards there is no interpreter to call into.
        # pynng ends NNG's threads in an earlier registration, which runs after this one.
        library.nng_log_set_logger(ctypes.cast(library.nng_null_logger, ctypes.c_void_p))
        _ = callback

    atexit.register(silence)
    return tally
