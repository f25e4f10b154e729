"""The real link: NNG Req0, one connection, several questions at once.

What pynng 0.9.0 needs, each of it measured (numbers as in the link's feasibility report):

- The size of a received message is unlimited unless set, and setting it reports no error: it is
  set before dialling and read back.
- A question without a pipe waits for one, however long: it gets a send time-out of its own, and
  the message, which pynng forgets on that path (10 kB leaked per question), is freed here.
- A frozen connection looks alive for ever: on a time-out its pipe is closed, and nng dials anew.
- A dialer can get stuck inside a handshake: without a pipe for a minute the socket is made anew.
- nng repeats a question whose pipe broke. Repeating is our callers' affair only when the
  controller is silent, so nng's own timer for that is set beyond every time-out.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from types import TracebackType
from typing import Any, Self

from appliance.errors import LinkError
from appliance.wire import ANSWER_MAX_BYTES, REQUEST_MAX_BYTES

HEADER_ROOM_BYTES = 64
"""nng's bound on what is received counts its own header: 4 bytes per question, 4 more per relay."""

_NEVER_RESEND_MS = 3_600_000
_PIPELESS_S = 60.0


class NngLink:
    """Implements Link.

    Dialling is nng's business and goes on in the background, for ever: a controller that is
    away is a LinkError per question, not a failure to construct.

    Args:
        url: of the controller.
        concurrent: questions under way at most; more of them wait for their turn.
        redial_s: shortest and longest time between two attempts to connect.
        answer_max_bytes: what is received at most.
        request_max_bytes: what is sent at most.
        pipeless_s: without a connection for so long, the socket is made anew.

    Raises:
        LinkError: the address cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        concurrent: int = 3,
        redial_s: tuple[float, float] = (1.0, 60.0),
        answer_max_bytes: int = ANSWER_MAX_BYTES,
        request_max_bytes: int = REQUEST_MAX_BYTES,
        pipeless_s: float = _PIPELESS_S,
    ) -> None:
        self._url, self._redial_s = url, redial_s
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
            raise LinkError(f"{self._url}: other questions were under way for {timeout_s:g} s")
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
                raise LinkError(f"{self._url}: the link is closed")
            line = self._line
            deadline_s = min(deadline_s, asked_s + self._longest_s)
            context = line.open_context()
        try:
            return line.ask(context, message, deadline_s)
        except _TooLateError as e:
            why = "no answer" if line.connected else "no connection"
            line.hang_up()
            if line.pipeless_s > self._pipeless_s:
                self._renew(line)
            waited_s = time.monotonic() - asked_s
            raise LinkError(f"{self._url}: {why} within {waited_s:.1f} s") from e

    def _dial(self) -> _Line:
        return _Line(self._url, redial_s=self._redial_s, max_bytes=self._answer_max_bytes)

    def _renew(self, stale: _Line) -> None:
        """Replace a socket; the first of several threads that ask for it does it."""
        with self._lock:
            if self._closed or self._line is not stale:
                return
            self._line = self._dial()
        stale.close()


class _TooLateError(Exception):
    """The deadline of a question has passed."""


class _Line:
    """One Req0 socket, its dialer and its pipes. All of pynng that there is in the node."""

    def __init__(self, url: str, *, redial_s: tuple[float, float], max_bytes: int) -> None:
        import pynng

        self._nng = pynng
        self._lock = threading.Lock()
        self._url = url
        self._pipes: set[Any] = set()
        self._contexts: set[Any] = set()
        self._pipeless_since_s = time.monotonic()
        self._socket = pynng.Req0(
            resend_time=_NEVER_RESEND_MS,
            reconnect_time_min=round(redial_s[0] * 1e3),
            reconnect_time_max=round(redial_s[1] * 1e3),
        )
        try:
            self._socket.add_post_pipe_connect_cb(self._connected)
            self._socket.add_post_pipe_remove_cb(self._disconnected)
            self._socket.recv_max_size = max_bytes + HEADER_ROOM_BYTES
            if self._socket.recv_max_size != max_bytes + HEADER_ROOM_BYTES:
                raise LinkError(f"{url}: what is received cannot be bounded at {max_bytes} bytes")
            self._socket.dial(url, block=False)
        except pynng.NNGException as e:
            self._socket.close()
            raise LinkError(f"'{url}' is no address that can be dialled: {e}") from e

    @property
    def connected(self) -> bool:
        """Whether there is a pipe."""
        with self._lock:
            return bool(self._pipes)

    @property
    def pipeless_s(self) -> float:
        """For how long there has been no pipe."""
        with self._lock:
            return 0.0 if self._pipes else time.monotonic() - self._pipeless_since_s

    def open_context(self) -> Any:  # noqa: ANN401 - pynng has no types
        """A context for one question: what timed out in it must not be repeated by nng later.

        Raises:
            LinkError: the socket is closed.
        """
        try:
            context = self._socket.new_context()
        except self._nng.NNGException as e:
            raise LinkError(f"{self._url}: cannot ask: {e}") from e
        with self._lock:
            self._contexts.add(context)
        return context

    def ask(self, context: Any, message: bytes, deadline_s: float) -> bytes:  # noqa: ANN401 - pynng has no types
        """The answer; the context is closed.

        Raises:
            _TooLateError: no pipe or no answer by the deadline.
            LinkError: cancelled or closed meanwhile.
        """
        try:
            self._send(context, message, deadline_s)
            self._limit(context, b"recv-timeout", deadline_s)
            answer: bytes = context.recv()
        except self._nng.Timeout as e:
            raise _TooLateError from e
        except self._nng.NNGException as e:
            raise LinkError(f"{self._url}: question not answered: {e}") from e
        finally:
            with self._lock:
                self._contexts.discard(context)
            with contextlib.suppress(self._nng.NNGException):  # cancelled, or its socket closed
                context.close()
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

    def _disconnected(self, pipe: Any) -> None:  # noqa: ANN401 - pynng has no types
        with self._lock:
            self._pipes.discard(pipe)
            if not self._pipes:
                self._pipeless_since_s = time.monotonic()
