"""The join port: a node that has a one-time token, and no certificate yet, gets one.

Whoever knocks here is a stranger. A token is known by its SHA-256 alone, compared in constant
time, and is used up by the first request that brings it: the very same request may come again,
because answers get lost, another one may not.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography import x509

from appliance.controller import identity
from appliance.controller.attendance import Attendance
from appliance.controller.events import Notify, event
from appliance.controller.office import Office
from appliance.controller.store import Status, Store
from appliance.errors import IdentityError, RowRefusedError, StoreError
from appliance.wire import REASON_MAX_CHARS, Answer, Deny, Join, Joined, Request

log = logging.getLogger(__name__)

Issue = Callable[[str, bytes, datetime], x509.Certificate]
"""A certificate for a node by its request, at a time; raises IdentityError."""

_TELL_MS = 1000
_NO = "no node of this name is expected with this token"
"""The same for every reason: a stranger learns nothing about which names exist."""


def token_hash(token: bytes) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(b"picket token/1\0" + token).digest()


class Joining:
    """Answers at the join port. Used by one thread.

    Args:
        office: told to look again after a node has joined.
        store: has the tokens.
        attendance: told of each node that joined.
        issue: makes certificates.
        utc_ms: wall clock.
        notify: told of each node that joined or was turned away.

    Attributes:
        denied: requests that were turned away.
    """

    def __init__(
        self,
        office: Office,
        store: Store,
        *,
        attendance: Attendance,
        issue: Issue,
        utc_ms: Callable[[], int],
        notify: Notify,
    ) -> None:
        self._office, self._store, self._issue = office, store, issue
        self._attendance = attendance
        self._told_ms = 0
        self.denied = 0
        self._utc_ms, self._notify = utc_ms, notify

    def answer(self, request: Request) -> Answer:
        """Joined, or Deny."""
        if not isinstance(request, Join):
            return Deny("this port answers nothing but Join")
        digest = hashlib.sha256(b"\0".join((request.token, request.watch_key, request.csr)))
        now_ms = self._utc_ms()
        try:
            if not self._expected(request, now_ms):
                return self._deny(request.node, _NO)
            at = datetime.fromtimestamp(now_ms / 1000, UTC)
            certificate = self._issue(request.node, request.csr, at)
            self._store.nodes.join(
                request.node,
                join_digest=digest.digest(),
                watch_key=request.watch_key,
                serial=certificate.serial_number,
                now_ms=now_ms,
            )
            self._office.refresh()
        except (IdentityError, RowRefusedError) as e:
            return self._deny(request.node, str(e)[:REASON_MAX_CHARS])
        except StoreError as e:
            log.error("%s cannot join: %s", request.node, e)  # noqa: TRY400 - the line says it all
            return Deny("the controller cannot reach its store; ask again")
        # A node that was silent for long and joins again has been confirmed by its token.
        self._attendance.heard(request.node, at_ms=now_ms)
        self._notify(event("joined", node=request.node))
        return Joined(identity.pem(certificate))

    def _deny(self, node: str, reason: str) -> Deny:
        """Count it, and tell it at most once a second: a flood must not fill the screen."""
        self.denied += 1
        now_ms = self._utc_ms()
        if abs(now_ms - self._told_ms) >= _TELL_MS:
            self._told_ms = now_ms
            self._notify(event("denied", node=node, reason=reason, count=self.denied))
        return Deny(reason)

    def _expected(self, request: Join, now_ms: int) -> bool:
        row = self._store.nodes.get(request.node)
        known = bytes(32) if row is None or row.token_hash is None else row.token_hash
        same = hmac.compare_digest(known, token_hash(request.token))
        return (
            same
            and row is not None
            and row.status in {Status.INVITED, Status.JOINED}
            and now_ms < row.token_expires_ms
        )
