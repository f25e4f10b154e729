"""What the controller says to a node about lists, signed by its online key: grants and endings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.controller.plan import Wanted
from appliance.errors import ControllerError
from appliance.watchlist.grant import Terms, seal_grant
from appliance.watchlist.stamp import Action, Stamp, make_stamp
from appliance.wire import Hello, Offer, Poll


class Offers:
    """Makes answers to polls. Thread-safe.

    Args:
        online_key: whose public half every node has.
        utc_ms: the wall clock; nodes that have none believe it.
    """

    def __init__(self, online_key: Ed25519PrivateKey, utc_ms: Callable[[], int]) -> None:
        self._online_key, self._utc_ms = online_key, utc_ms

    def grant(self, wanted: Wanted, *, to: Hello, poll: Poll, lease_s: int) -> Offer:
        """A list, opened for one boot of one node for so long.

        Raises:
            ControllerError: the list's key was destroyed meanwhile.
            GrantError: the node's key is none.
        """
        row, deployment = wanted.row, wanted.deployment
        if row.content_key is None:
            raise ControllerError(f"list {row.list_id} version {row.version}: its key is destroyed")
        digest = hashlib.sha256(row.head).digest()
        terms = Terms(
            node=poll.node,
            boot=poll.boot,
            nonce=poll.nonce,
            head_sha256=digest,
            deployment=deployment.deployment,
            lease_s=lease_s,
        )
        stamp = Stamp(
            action=Action.GRANT,
            node=poll.node,
            nonce=poll.nonce,
            now_utc_ms=self._utc_ms(),
            list_id=row.list_id,
            version=row.version,
            head_sha256=digest,
            deployment=deployment.deployment,
            lease_s=lease_s,
            until_utc_ms=deployment.until_ms,
        )
        return Offer(
            stamp=make_stamp(stamp, self._online_key),
            head=row.head,
            digests=row.digests,
            grant=seal_grant(row.content_key, to=to.grant_key, terms=terms),
        )

    def withdraw(self, poll: Poll) -> Offer:
        """Close the list that the poll names."""
        return self._end(Action.WITHDRAW, poll, poll.list_id, poll.list_version)

    def wipe(self, poll: Poll) -> Offer:
        """Close every list, and forget the key that grants are sealed to."""
        return self._end(Action.WIPE, poll, "", 0)

    def _end(self, action: Action, poll: Poll, list_id: str, version: int) -> Offer:
        stamp = Stamp(
            action=action,
            node=poll.node,
            nonce=poll.nonce,
            now_utc_ms=self._utc_ms(),
            list_id=list_id,
            version=version,
        )
        return Offer(make_stamp(stamp, self._online_key), b"", b"", b"")
