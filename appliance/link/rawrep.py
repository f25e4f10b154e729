"""The answering side's socket: raw NNG Rep, so that any question can be answered at any time.

A raw socket hands over each question with its return address (a header of pipe and request
numbers), which is appended to the answer, now or much later, by any thread. That is how a poll
is parked without a context or a thread of its own.

What pynng 0.9.0 needs besides what listener.py has, measured like that:

- A pipe whose callback raises is accepted: ours is wrapped, and closes the pipe instead; and a
  question from a pipe that no callback has let in is dropped, not delivered (D5).
- A connection that broke at the wrong moment keeps its pipe and its file for ever: pipes that
  have asked nothing for long are closed, and a name has only so many pipes (D3). Of some NNG keeps
  the file even then: to listener.py they are strangers, and are shed like those.
- Asking a closed socket again and again, while NNG takes down its half-open connections, ends the
  process (6 of 15 tries): it is not closed while it is used, and not used once it is closed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from appliance.errors import LinkError
from appliance.link.listener import Listener
from appliance.link.overhear import overhear
from appliance.link.peers import Peers
from appliance.link.tls import ServerTls, common_name

log = logging.getLogger(__name__)

_SWEEP_S = 5.0
_CLOSE_S = 5.0
"""Above every time-out of `receive`."""


class Received(NamedTuple):
    """A question.

    Attributes:
        reply_to: return address, for `RawRep.send`.
        message: what was asked.
        peer: common name of the asker's certificate; None where none is asked for.
    """

    reply_to: bytes
    message: bytes
    peer: str | None


class RawRep:
    """A raw Rep socket: of the controller, the link service and the indicator. Thread-safe.

    Args:
        url: to listen at; port 0 takes a free one.
        max_bytes: of a message received.
        tls: for a tls+tcp:// address.
        admit: whether a common name may ask. Called by NNG's threads under a lock, and for each
            question again: a look-up in memory and nothing more. None admits every name that
            the certificates admit.
        idle_s: a connection that has asked nothing for so long is closed; whoever is alive
            dials again by itself.

    Attributes:
        url: with the real port.
        refused: connections that `admit` has turned away, and questions dropped because their
            connection was no longer admitted.

    Raises:
        LinkError: the address is in use, or is none; or the certificates cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        max_bytes: int,
        tls: ServerTls | None = None,
        admit: Callable[[str], bool] | None = None,
        idle_s: float = 300.0,
    ) -> None:
        import pynng

        self._nng = pynng
        self._known = tls is not None and tls.mutual
        self._admit, self._idle_s = admit, idle_s
        self._peers: Peers[Any] = Peers()
        self._listener_lock = threading.Lock()
        self._swept_s = time.monotonic()
        self._closed = False
        self._users = 0
        self._quiet = threading.Condition()
        self.refused = 0
        self._socket = pynng.Socket(opener=pynng.lib.nng_rep0_open_raw)
        try:
            # Before listening, or the first connections escape them.
            self._socket.add_pre_pipe_connect_cb(self._connecting)
            self._socket.add_post_pipe_remove_cb(self._removed)
            self._listener = Listener(self._socket, url, max_bytes=max_bytes, tls=tls)
        except LinkError:
            self._socket.close()
            raise
        if tls is not None:
            overhear()
        self.url = self._listener.url

    def receive(self, timeout_s: float) -> Received | None:
        """The next question, or None: none came within timeout_s, or closed."""
        with self._in_use() as usable:
            if not usable:
                return None
            self._sweep()
            message = self._next(timeout_s)
        if message is None:
            return None
        lib, ffi = self._nng.lib, self._nng.ffi
        raw = message._nng_msg  # noqa: SLF001 - pynng has no public name for the header
        reply_to = bytes(ffi.buffer(lib.nng_msg_header(raw), lib.nng_msg_header_len(raw)))
        pipe_id = lib.nng_pipe_id(lib.nng_msg_get_pipe(raw))
        heard = self._peers.hear(pipe_id, time.monotonic())
        if heard is None:
            return None  # gone, or never let in: nobody is there to hear an answer
        (name,) = heard
        if not self._admits(name):
            self.refused += 1
            return None
        return Received(reply_to, message.bytes, name)

    def send(self, reply_to: bytes, message: bytes) -> None:
        """Answer. To a node that has gone this does nothing; it will ask again."""
        answer = self._nng.Message(message)
        lib, raw = self._nng.lib, answer._nng_msg  # noqa: SLF001 - see receive
        self._nng.check_err(lib.nng_msg_header_append(raw, reply_to, len(reply_to)))
        with self._in_use() as usable:
            if not usable:
                log.debug("an answer came after the end")
                return
            # Blocking, or answers are lost (measured); each node has a queue of its own, so that
            # a slow one holds nobody up.
            self._socket.send_msg(answer)

    def close_peer(self, name: str) -> int:
        """Close every connection of a common name; returns how many there were."""
        pipes = self._peers.of(name)
        for pipe in pipes:
            self._hang_up(pipe)
        return len(pipes)

    def renew(self, tls: ServerTls) -> None:
        """Use other certificates, or another revocation list, for connections from now on.

        Those that exist stay: `close_peer`, and `admit`, end them.

        Raises:
            LinkError: the certificates cannot be used; those in use stay.
        """
        with self._listener_lock:
            self._listener.renew(tls)

    def close(self) -> None:
        """Stop listening, once whoever waits in here has returned. At any time, from any thread.

        nng aborts the process when a raw socket that is being closed is asked once more (measured).
        """
        with self._quiet:
            self._closed = True
            if not self._quiet.wait_for(lambda: self._users == 0, _CLOSE_S):
                log.warning("%s: closed while somebody waits in it", self.url)
        self._socket.close()

    @contextmanager
    def _in_use(self) -> Iterator[bool]:
        """Whether the socket may be used in this block; it is not closed during it."""
        with self._quiet:
            usable = not self._closed
            self._users += usable
        try:
            yield usable
        finally:
            with self._quiet:
                self._users -= usable
                self._quiet.notify_all()

    def _next(self, timeout_s: float) -> Any:  # noqa: ANN401 - pynng has no types
        """A message with its header, or None.

        Not Socket.recv_msg(): that enters a pipe which has gone into a dictionary, for ever.
        """
        nng = self._nng
        received = nng.ffi.new("nng_msg **")
        try:
            self._socket.recv_timeout = round(timeout_s * 1e3)
            nng.check_err(nng.lib.nng_recvmsg(self._socket.socket, received, 0))
        except (nng.Timeout, nng.Closed):
            return None
        return nng.Message(received[0])

    def _connecting(self, pipe: Any) -> None:  # noqa: ANN401 - pynng has no types
        """Let a connection in, or close it. Whatever goes wrong in here closes it."""
        try:
            admitted = self._enter(pipe)
        except Exception:
            log.exception("%s: a connection was refused by a fault of ours", self.url)
            admitted = False
        if not admitted:
            self._hang_up(pipe)

    def _enter(self, pipe: Any) -> bool:  # noqa: ANN401 - pynng has no types
        name = common_name(pipe) if self._known else None
        if self._known and (name is None or not self._admits(name)):
            self.refused += 1
            return False
        for left_over in self._peers.enter(pipe.id, pipe, name, time.monotonic()):
            self._hang_up(left_over)
        return True

    def _admits(self, name: str | None) -> bool:
        return name is None or self._admit is None or self._admit(name)

    def _removed(self, pipe: Any) -> None:  # noqa: ANN401 - pynng has no types
        self._peers.leave(pipe.id)

    def _hang_up(self, pipe: Any) -> None:  # noqa: ANN401 - pynng has no types
        self._peers.leave(pipe.id)
        with suppress(self._nng.NNGException):  # closed by itself meanwhile
            pipe.close()

    def _sweep(self) -> None:
        """Close what has asked nothing for long (D3), and what is half open for long (D1)."""
        now_s = time.monotonic()
        if now_s - self._swept_s < _SWEEP_S:
            return
        self._swept_s = now_s
        for pipe in self._peers.silent_since(now_s - self._idle_s):
            self._hang_up(pipe)
        with self._listener_lock:
            self._listener.shed(len(self._peers))
