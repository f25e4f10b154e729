"""One NNG Req0 socket, its dialer and its pipes: all of pynng that there is on the asking side.

What pynng 0.9.0 needs, each of it measured (numbers as in the link's feasibility report):

- The size of a received message is unlimited unless set, and setting it reports no error: it is
  set before dialling and read back (D6).
- A question without a pipe waits for one, however long: it gets a send time-out of its own, and
  the message, which pynng forgets on that path (10 kB leaked per question), is freed here (D7).
- A frozen connection looks alive for ever: on a time-out its pipe is closed, and nng dials anew;
  that also frees a pipe which broke unnoticed (D3).
- nng repeats a question whose pipe broke. Repeating is our callers' affair only when the
  controller is silent, so nng's own timer for that is set beyond every time-out.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from appliance.errors import LinkError
from appliance.link.overhear import overhear
from appliance.link.tls import ClientTls, client_config

HEADER_ROOM_BYTES = 64
"""nng's bound on what is received counts its own header: 4 bytes per question, 4 more per relay."""

_NEVER_RESEND_MS = 3_600_000


class TooLateError(Exception):
    """The deadline of a question has passed."""


class Line:
    """One connection to one address, dialled in the background for ever. Thread-safe.

    Args:
        url: of a controller.
        tls: for a tls+tcp:// address.
        redial_s: shortest and longest time between two attempts to connect.
        max_bytes: of what is received.

    Raises:
        LinkError: the address or the certificates cannot be used.
    """

    def __init__(
        self, url: str, *, tls: ClientTls | None, redial_s: tuple[float, float], max_bytes: int
    ) -> None:
        import pynng

        self._nng = pynng
        self._lock = threading.Lock()
        self.url, self._tally = url, None if tls is None else overhear()
        self._failed_before = 0 if self._tally is None else self._tally.handshakes
        self._pipes: set[Any] = set()
        self._contexts: set[Any] = set()
        self._silent_since_s: float | None = time.monotonic()
        self._socket = pynng.Req0(
            resend_time=_NEVER_RESEND_MS,
            reconnect_time_min=round(redial_s[0] * 1e3),
            reconnect_time_max=round(redial_s[1] * 1e3),
        )
        try:
            self._socket.add_post_pipe_connect_cb(self._connected)
            self._socket.add_post_pipe_remove_cb(self._disconnected)
            self._socket.recv_max_size = max_bytes + HEADER_ROOM_BYTES
            if tls is not None:
                self._socket.tls_config = client_config(tls)
            taken = self._socket.dial(url, block=False).recv_max_size
        except LinkError:
            self._socket.close()
            raise
        except pynng.NNGException as e:
            self._socket.close()
            raise LinkError(f"'{url}' is no address that can be dialled: {e}") from e
        if taken != max_bytes + HEADER_ROOM_BYTES:
            self._socket.close()
            raise LinkError(f"{url}: what is received cannot be bounded at {max_bytes} bytes")

    @property
    def connected(self) -> bool:
        """Whether there is a pipe."""
        with self._lock:
            return bool(self._pipes)

    @property
    def silent_s(self) -> float:
        """For how long there has been no connection, or no answer to what was asked."""
        with self._lock:
            since_s = self._silent_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    @property
    def why(self) -> str:
        """Why there is no connection, as far as TLS knows."""
        if self._tally is None or self._tally.handshakes == self._failed_before:
            return ""
        return f" (TLS: {self._tally.last})"

    def open_context(self) -> Any:  # noqa: ANN401 - pynng has no types
        """A context for one question: what timed out in it must not be repeated by nng later.

        Raises:
            LinkError: the socket is closed.
        """
        try:
            context = self._socket.new_context()
        except self._nng.NNGException as e:
            raise LinkError(f"{self.url}: cannot ask: {e}") from e
        with self._lock:
            self._contexts.add(context)
        return context

    def ask(self, context: Any, message: bytes, deadline_s: float) -> bytes:  # noqa: ANN401 - pynng has no types
        """The answer; the context is closed.

        Raises:
            TooLateError: no pipe or no answer by the deadline.
            LinkError: cancelled or closed meanwhile.
        """
        try:
            self._send(context, message, deadline_s)
            self._limit(context, b"recv-timeout", deadline_s)
            answer: bytes = context.recv()
        except self._nng.Timeout as e:
            with self._lock:
                self._falls_silent()
            raise TooLateError from e
        except self._nng.NNGException as e:
            raise LinkError(f"{self.url}: question not answered: {e}") from e
        finally:
            with self._lock:
                self._contexts.discard(context)
            with contextlib.suppress(self._nng.NNGException):  # cancelled, or its socket closed
                context.close()
        with self._lock:
            self._silent_since_s = None
        return answer

    def cancel(self) -> None:
        """End every question under way."""
        with self._lock:
            for context in self._contexts:
                # Not context.close(): that clears what the thread that waits on it still uses.
                self._nng.lib.nng_ctx_close(context.context)

    def hang_up(self) -> None:
        """Close the pipes; nng dials again at once, then ever more rarely."""
        with self._lock:
            pipes = tuple(self._pipes)
        for pipe in pipes:
            with contextlib.suppress(self._nng.NNGException):  # closed by itself meanwhile
                pipe.close()

    def close(self) -> None:
        """Close the socket; contexts waiting on it return at once."""
        self._socket.close()

    def _send(self, context: Any, message: bytes, deadline_s: float) -> None:  # noqa: ANN401 - pynng has no types
        self._limit(context, b"send-timeout", deadline_s)
        sending = self._nng.Message(message)
        try:
            context.send_msg(sending)
        except self._nng.NNGException:
            # nng gives a message that it could not send back; pynng has forgotten it by then.
            if sending._mem_freed:  # noqa: SLF001 - no public name exists
                self._nng.lib.nng_msg_free(sending._nng_msg)  # noqa: SLF001
            raise

    def _limit(self, context: Any, option: bytes, deadline_s: float) -> None:  # noqa: ANN401 - pynng has no types
        left_ms = max(1, round((deadline_s - time.monotonic()) * 1e3))
        self._nng.check_err(self._nng.lib.nng_ctx_set_ms(context.context, option, left_ms))

    def _connected(self, pipe: Any) -> None:  # noqa: ANN401 - pynng has no types
        with self._lock:
            self._pipes.add(pipe)
            if self._tally is not None:
                self._failed_before = self._tally.handshakes

    def _disconnected(self, pipe: Any) -> None:  # noqa: ANN401 - pynng has no types
        with self._lock:
            self._pipes.discard(pipe)
            if not self._pipes:
                self._falls_silent()

    def _falls_silent(self) -> None:
        if self._silent_since_s is None:
            self._silent_since_s = time.monotonic()
