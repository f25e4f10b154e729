"""The real link: NNG Req0, one connection, several questions at once, several addresses in turn.

A socket, with all that pynng needs, is line.py's; here is who may use it and for how long, and
when it is made anew: a dialer can get stuck inside a handshake, and a controller can connect and
answer nothing. After a minute of either there is a new socket, towards the next address (D2).
Never are two addresses dialled by one socket: it would ask them in turn, a question each.
"""

from __future__ import annotations

import math
import threading
import time
from types import TracebackType
from typing import Self

from appliance.errors import LinkError
from appliance.link.line import Line, TooLateError
from appliance.link.tls import ClientTls
from appliance.wire import ANSWER_MAX_BYTES, REQUEST_MAX_BYTES

_PIPELESS_S = 60.0


class NngLink:
    """Implements Link.

    Dialling is nng's business and goes on in the background, for ever: a controller that is
    away is a LinkError per question, not a failure to construct.

    Args:
        urls: of the controllers, at least one; the first is asked until it is silent for
            pipeless_s, then the next.
        tls: for tls+tcp:// addresses, and for no others.
        concurrent: questions under way at most; more of them wait for their turn.
        redial_s: shortest and longest time between two attempts to connect.
        answer_max_bytes: what is received at most.
        request_max_bytes: what is sent at most.
        pipeless_s: without a connection, or an answer, for so long, the socket is made anew.

    Raises:
        LinkError: an address cannot be used, or the certificates cannot.
    """

    def __init__(
        self,
        *urls: str,
        tls: ClientTls | None = None,
        concurrent: int = 3,
        redial_s: tuple[float, float] = (1.0, 60.0),
        answer_max_bytes: int = ANSWER_MAX_BYTES,
        request_max_bytes: int = REQUEST_MAX_BYTES,
        pipeless_s: float = _PIPELESS_S,
    ) -> None:
        if not urls:
            raise LinkError("no address to dial")
        for url in urls:
            if (tls is not None) != url.startswith("tls+"):
                raise LinkError(
                    f"'{url}' is no address that can be dialled: certificates go with tls+tcp://"
                )
        self._urls, self._turn, self._tls, self._redial_s = urls, 0, tls, redial_s
        self._answer_max_bytes, self._request_max_bytes = answer_max_bytes, request_max_bytes
        self._pipeless_s = pipeless_s
        self._turns = threading.BoundedSemaphore(concurrent)
        self._lock = threading.Lock()
        self._closed = False
        self._longest_s = math.inf
        self._line = self._dial()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address that is asked at the moment."""
        return self._urls[self._turn]

    @property
    def connected(self) -> bool:
        """Whether there is a connection; it may still be a frozen one."""
        return self._line.connected

    def request(self, message: bytes, timeout_s: float) -> bytes:
        if len(message) > self._request_max_bytes:
            raise LinkError(
                f"question of {len(message)} bytes: at most {self._request_max_bytes} are sent"
            )
        deadline_s = time.monotonic() + timeout_s
        if not self._turns.acquire(timeout=max(timeout_s, 0.0)):
            raise LinkError(f"{self.url}: other questions were under way for {timeout_s:g} s")
        try:
            return self._ask(message, deadline_s)
        finally:
            self._turns.release()

    def wind_down(self, longest_s: float) -> None:
        """End every question under way with a LinkError, a parked poll among them.

        Later questions are still asked, for a last report, but none waits longer than longest_s.
        At any time, from any thread.
        """
        with self._lock:
            self._longest_s = longest_s
            self._line.cancel()

    def use(self, tls: ClientTls) -> None:
        """Show another certificate from now on. Questions under way end with a LinkError.

        Raises:
            LinkError: the certificates cannot be used; those in use stay.
        """
        with self._lock:
            if self._closed:
                return
            before, self._tls = self._tls, tls
            stale = self._line
            try:
                self._line = self._dial()
            except LinkError:
                self._tls = before
                raise
        stale.close()

    def close(self) -> None:
        """End every question under way with a LinkError. At any time, from any thread."""
        with self._lock:
            self._closed = True
            line = self._line
        line.close()

    def _ask(self, message: bytes, deadline_s: float) -> bytes:
        asked_s = time.monotonic()
        with self._lock:  # so that wind_down sees each question either under way or to come
            if self._closed:
                raise LinkError(f"{self.url}: the link is closed")
            line = self._line
            deadline_s = min(deadline_s, asked_s + self._longest_s)
            context = line.open_context()
        try:
            return line.ask(context, message, deadline_s)
        except TooLateError as e:
            why = "no answer" if line.connected else f"no connection{line.why}"
            line.hang_up()
            if line.silent_s > self._pipeless_s:
                self._renew(line)
            waited_s = time.monotonic() - asked_s
            raise LinkError(f"{line.url}: {why} within {waited_s:.1f} s") from e

    def _dial(self) -> Line:
        return Line(
            self.url, tls=self._tls, redial_s=self._redial_s, max_bytes=self._answer_max_bytes
        )

    def _renew(self, stale: Line) -> None:
        """Replace a socket; the first of several threads that ask for it does it."""
        with self._lock:
            if self._closed or self._line is not stale:
                return
            self._turn = (self._turn + 1) % len(self._urls)
            self._line = self._dial()
        stale.close()
