"""The endpoints behind an address: bytes in, bytes out, nothing that a stranger sends ends it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from appliance.controller.endpoints import Endpoints, Reply
from appliance.controller.events import Notify, event
from appliance.controller.library import Listing
from appliance.link.rawrep import RawRep
from appliance.errors import WireError
from appliance.wire import REQUEST_MAX_BYTES, Deny, decode_request, encode

_RECEIVE_S = 0.2
_EXPIRE_S = 0.25
_TELL_S = 1.0


class Server:
    """Endpoints behind an address. `receive` and `expire` are steps, of one worker each.

    Args:
        url: to listen at; port 0 takes a free one.
        endpoints: answers.
        notify: told of bytes that are no question.
        stop: ends a wait at once.
        request_max_bytes: what is received at most; whoever sends more is disconnected.

    Attributes:
        url: with the real port.
        hostile: messages received that are no question.

    Raises:
        ControllerError: the address is in use, or is none.
    """

    def __init__(
        self,
        url: str,
        endpoints: Endpoints,
        *,
        notify: Notify,
        stop: threading.Event,
        request_max_bytes: int = REQUEST_MAX_BYTES,
    ) -> None:
        self._endpoints, self._notify, self._stop = endpoints, notify, stop
        self._socket = RawRep(url, max_bytes=request_max_bytes)
        self.url = self._socket.url
        self.hostile = 0
        self._told_s = -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def receive(self) -> None:
        """Take one question and answer or park it; returns after a while without any."""
        received = self._socket.receive(_RECEIVE_S)
        if received is None:
            return
        reply_to, question, _ = received
        try:
            answer = self._endpoints.answer(decode_request(question), reply_to)
        except WireError as e:
            self._suspect(str(e))
            answer = Deny("not a question")
        if answer is not None:
            self._send([(reply_to, answer)])

    def expire(self) -> None:
        """Answer parked polls whose time is up."""
        if not self._stop.wait(_EXPIRE_S):
            self._send(self._endpoints.expire())

    def publish(self, listing: Listing | None) -> None:
        """Push a list to all nodes, or withdraw the one in use."""
        self._send(self._endpoints.publish(listing))

    def close(self) -> None:
        """Stop listening. At any time, from any thread."""
        self._socket.close()

    def _suspect(self, reason: str) -> None:
        """Count it, and tell it at most once a second: a flood must not fill the screen."""
        self.hostile += 1
        now_s = time.monotonic()
        if now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            self._notify(event("hostile", reason=reason, count=self.hostile))

    def _send(self, replies: Iterable[Reply]) -> None:
        for reply_to, answer in replies:
            self._socket.send(reply_to, encode(answer))
