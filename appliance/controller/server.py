"""The endpoints behind two addresses: bytes in, bytes out. No bytes of a stranger end it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from appliance.controller.desk import Desk
from appliance.controller.events import Notify, event
from appliance.controller.polls import Reply
from appliance.controller.store import Store
from appliance.errors import IdentityError, LinkError, StoreError, WireError
from appliance.link.rawrep import RawRep
from appliance.link.tls import ServerTls
from appliance.system.worker import Worker
from appliance.wire import REQUEST_MAX_BYTES, Answer, Deny, decode_request, encode

log = logging.getLogger(__name__)

_RECEIVE_S = 0.2
_TICK_S = 0.2
_FLUSH_S = 1.0
_TELL_S = 1.0
_CHECK_S = 60.0
"""Between two looks at our own certificate, which `tls` renews."""


class Server:
    """A controller that listens from its constructor on and works while `workers` do.

    Args:
        url: for nodes, tls+tcp://; port 0 takes a free one.
        join_url: for nodes without a certificate.
        tls: gives the certificates and revocations in force, for `url`.
        join_tls: the same for `join_url`.
        desk: answers.
        store: has the orders, and keeps what was heard.
        utc_ms: wall clock.
        notify: told of bytes that are no question.
        stop: ends every wait.

    Attributes:
        url, join_url: with the real ports.
        hostile: messages received that are no question.

    Raises:
        LinkError: an address is in use, or is none; or the certificates cannot be used.
    """

    def __init__(
        self,
        url: str,
        join_url: str,
        *,
        tls: Callable[[], ServerTls],
        join_tls: Callable[[], ServerTls],
        desk: Desk,
        store: Store,
        utc_ms: Callable[[], int],
        notify: Notify,
        stop: threading.Event,
    ) -> None:
        self._tls, self._join_tls = tls, join_tls
        self._desk, self._store, self._utc_ms = desk, store, utc_ms
        self._notify, self._stop = notify, stop
        self._in_force, self._plan = tls(), desk.office.plan
        self._socket = RawRep(
            url, max_bytes=REQUEST_MAX_BYTES, tls=self._in_force, admit=desk.office.admits
        )
        try:
            self._door = RawRep(join_url, max_bytes=REQUEST_MAX_BYTES, tls=join_tls())
        except LinkError:
            self._socket.close()
            raise
        self.url, self.join_url = self._socket.url, self._door.url
        self.hostile = 0
        self._told_s = self._flushed_s = -math.inf
        self._checked_s = time.monotonic()
        self._failing = False
        self._leaving: set[str] = set()

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
    def refused(self) -> int:
        """Connections and questions of names that may not ask."""
        return self._socket.refused

    @property
    def workers(self) -> Sequence[Worker]:
        """The threads that it needs, not started yet."""
        steps = {
            "receive": self.receive,
            "store": self.store,
            "join": self.join,
            "tick": self.tick,
        }
        return [Worker(name, step, self._stop) for name, step in steps.items()]

    def receive(self) -> None:
        """Take one question and answer it, or let it wait; returns after a while without any."""
        received = self._socket.receive(_RECEIVE_S)
        if received is None:
            return
        answer: Answer | None
        try:
            question = decode_request(received.message)
            answer = self._desk.endpoints.answer(question, received.reply_to, received.peer)
        except WireError as e:
            self._suspect(str(e))
            answer = Deny("not a question")
        if answer is not None:
            self._send([(received.reply_to, answer)])

    def store(self) -> None:
        """Commit reports, then acknowledge them."""
        self._send(self._desk.reception.step())

    def join(self) -> None:
        """Take one question at the join port and answer it."""
        received = self._door.receive(_RECEIVE_S)
        if received is None:
            return
        try:
            answer = self._desk.joining.answer(decode_request(received.message))
        except WireError as e:
            self._suspect(f"join port: {e}")
            answer = Deny("not a question")
        self._door.send(received.reply_to, encode(answer))

    def tick(self) -> None:
        """Five times a second: what was ordered, whose time is up, what is to be written."""
        if self._stop.wait(_TICK_S):
            return
        for name in self._leaving:
            self._socket.close_peer(name)
        self._leaving.clear()
        try:
            self._look_around()
        except StoreError as e:
            if not self._failing:
                log.error("orders and health wait: %s", e)  # noqa: TRY400 - the line says it all
            self._failing = True
        else:
            self._failing = False
        self._send(self._desk.polls.expire())

    def close(self) -> None:
        """Stop listening, and write what was heard last. At any time, from any thread."""
        self._door.close()
        self._socket.close()
        try:
            self._flush()
        except StoreError as e:
            log.error("what was heard last is lost: %s", e)  # noqa: TRY400 - the line says it all

    def _look_around(self) -> None:
        now_ms = self._utc_ms()
        for deployment in self._desk.office.plan.over(now_ms):
            self._store.deployments.stop(deployment.deployment, ended_by="until", now_ms=now_ms)
            self._notify(event("ended", deployment=deployment.deployment))
        self._desk.office.refresh()
        before, plan = self._plan, self._desk.office.plan
        if plan is not before:  # another thread may have been the one that refreshed it
            self._plan = plan
            self._desk.attendance.expect(plan.nodes)
            self._desk.endpoints.forget_pieces()
            self._desk.upgrades.prepare()
            # Their parked polls get a last word first; at the next tick they are cut off.
            self._leaving = {n for n in before.nodes if before.admits(n) and not plan.admits(n)}
            self._renew_tls()
        elif time.monotonic() - self._checked_s >= _CHECK_S:
            self._renew_tls()
        if time.monotonic() - self._flushed_s >= _FLUSH_S:
            self._flushed_s = time.monotonic()
            self._flush()

    def _renew_tls(self) -> None:
        """Take over a new revocation list, or a new certificate of our own."""
        self._checked_s = time.monotonic()
        try:
            tls = self._tls()
            if tls != self._in_force:
                self._socket.renew(tls)
                self._door.renew(self._join_tls())
                self._in_force = tls
        except (IdentityError, LinkError) as e:
            log.error("certificates: those of before stay in force: %s", e)  # noqa: TRY400 - says it all

    def _flush(self) -> None:
        self._desk.lines.flush(self._store.records)
        self._desk.attendance.flush()
        self._desk.upgrades.flush()

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
