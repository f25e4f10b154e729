"""The answering side's socket: raw NNG Rep, so that any question can be answered at any time.

A raw socket hands over each question with its return address (a header of pipe and request
numbers), which is appended to the answer, now or much later, by any thread. That is how a poll
is parked without a context or a thread of its own. As for the node's socket, the size of what
is received is unlimited unless set, and setting it reports no error: it is read back.
"""

from __future__ import annotations

import logging
from typing import Any

from appliance.errors import LinkError
from appliance.link.nng import HEADER_ROOM_BYTES

log = logging.getLogger(__name__)


class RawRep:
    """A raw Rep socket: of the controller, the link service and the indicator. Thread-safe.

    Args:
        url: to listen at.
        max_bytes: of a message received.

    Raises:
        LinkError: the address is in use, or is none.
    """

    def __init__(self, url: str, *, max_bytes: int) -> None:
        import pynng

        self._nng = pynng
        self._socket = pynng.Socket(opener=pynng.lib.nng_rep0_open_raw)
        try:
            self._socket.recv_max_size = max_bytes + HEADER_ROOM_BYTES
            listener = self._socket.listen(url)
            bound = self._socket.recv_max_size
        except pynng.AddressInUse as e:
            self._socket.close()
            raise LinkError(f"{url} is in use") from e
        except pynng.NNGException as e:
            self._socket.close()
            raise LinkError(f"'{url}' is no address to listen at: {e}") from e
        if bound != max_bytes + HEADER_ROOM_BYTES:
            self._socket.close()
            raise LinkError(f"{url}: what is received cannot be bounded at {max_bytes} bytes")
        self.url = _real_url(url, listener)

    def receive(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        """(return address, message), or None: none came within timeout_s, or closed."""
        try:
            self._socket.recv_timeout = round(timeout_s * 1e3)
            message = self._socket.recv_msg()
        except (self._nng.Timeout, self._nng.Closed):
            return None
        lib, ffi = self._nng.lib, self._nng.ffi
        raw = message._nng_msg  # noqa: SLF001 - pynng has no public name for the header
        reply_to = bytes(ffi.buffer(lib.nng_msg_header(raw), lib.nng_msg_header_len(raw)))
        return reply_to, message.bytes

    def send(self, reply_to: bytes, message: bytes) -> None:
        """Answer. To a node that has gone this does nothing; it will ask again."""
        answer = self._nng.Message(message)
        lib, raw = self._nng.lib, answer._nng_msg  # noqa: SLF001 - see receive
        self._nng.check_err(lib.nng_msg_header_append(raw, reply_to, len(reply_to)))
        try:
            # Blocking, or answers are lost (measured); each node has a queue of its own, so that
            # a slow one holds nobody up.
            self._socket.send_msg(answer)
        except self._nng.Closed:
            log.debug("an answer came after the end")

    def close(self) -> None:
        """Stop listening; whoever waits in here returns."""
        self._socket.close()


def _real_url(url: str, listener: Any) -> str:  # noqa: ANN401 - pynng has no types
    """The address with the port that was taken for port 0."""
    scheme = url.partition("://")[0]
    return f"{scheme}://{listener.local_address}" if scheme == "tcp" else url
