"""What may become this node's watchlist, what may replace it, and when it ends.

Everything that comes in is a stranger's until it has passed, in this order:

     1. length bounds                                     OversizedListError
     2. signed by enough of the authorities               SignatureError
     3. in the form of a list, and fits in memory         ListFormatError, OversizedListError
     4. for this fleet                                    WrongFleetError
     5. stamped by the controller for this node,          StampError, WrongNodeError,
        this poll, this very head and deployment          StaleStampError, MixedListError,
                                                          WrongDeploymentError
     6. no older than the newest accepted                 RollbackError
     7. valid at the time that the stamp tells            NotYetValidError, ExpiredError
     8. made by this node's embedder                      WrongModelError, TemplateError
     9. the grant opens, and holds the list's key         GrantError
    10. the digests are those that were signed            DigestError
    11. can be served at the rate that it asks for        ThresholdError
    12. each piece is the one that was signed             DigestError
    13. rows and subjects are what the header counts      TemplateError, ListFormatError

Only then is the floor raised and the list taken into use, by one reference. What is refused on
the way changes nothing: the list in use stays until its lease ends. No I/O, no wall clock: time
is CLOCK_BOOTTIME, given as an argument, and what stamps tell.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from appliance.errors import (
    DigestError,
    ExpiredError,
    OversizedListError,
    SecretMemoryError,
    WatchlistError,
)
from appliance.watchlist.admission import Accepted, Admission, Admitted, Model
from appliance.watchlist.bundle import WHOLE
from appliance.watchlist.grant import GrantKey
from appliance.watchlist.match import Watchlist
from appliance.watchlist.memory import Allocate
from appliance.watchlist.opening import Opening
from appliance.watchlist.pieces import Sealer
from appliance.watchlist.stamp import Action, Stamp
from appliance.wire import Offer

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000
_NONCE_BYTES = 16

NONCE_S = 120.0
"""How old a poll may be when it is answered: parked for 60 s at most, and as long under way."""
MEMORY_MAX_BYTES = 512 * 2**20
FLOORS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an offer asks of the node; it has passed every check that needs no piece.

    Attributes:
        action: GRANT: the pieces are to be fetched; none: the lease of the list in use was
            renewed. WITHDRAW: closed. WIPE: closed, and a new hello is due, with a new grant key.
        list_id, version: of the list.
        pieces: indices, in order.
    """

    action: Action
    list_id: str
    version: int
    pieces: tuple[int, ...] = ()


@dataclass(slots=True)
class _Pending:
    """A list that was admitted, and whose pieces are coming."""

    admitted: Admitted
    opening: Opening
    lease_end_ns: int


class TrustedWatchlist:
    """The list in use, and the door to its place. Thread-safe.

    Args:
        node: id of this node.
        boot: 16 bytes, made at this start.
        fleet: whose lists are taken.
        authorities: Ed25519 public keys that may sign lists, 32 bytes each.
        signatures: how many different ones of them must have signed.
        online_key: Ed25519 public key of the controller, which signs stamps, 32 bytes.
        models: this node's embedder for each column that it can search, "whole" among them.
        allocate: makes secret memory.
        memory_max_bytes: that open templates may take.
        nonce_s: how old a poll may be when it is answered.
        random_bytes: makes nonces.
    """

    def __init__(
        self,
        *,
        node: str,
        boot: bytes,
        fleet: str,
        authorities: Collection[bytes],
        signatures: int,
        online_key: bytes,
        models: Mapping[str, Model],
        allocate: Allocate,
        memory_max_bytes: int = MEMORY_MAX_BYTES,
        nonce_s: float = NONCE_S,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        if WHOLE not in models:
            raise ValueError(f"models for {sorted(models)}: one for '{WHOLE}' is needed")
        self._admission = Admission(
            node=node,
            boot=boot,
            fleet=fleet,
            authorities=authorities,
            signatures=signatures,
            online_key=online_key,
            models=models,
            memory_max_bytes=memory_max_bytes,
        )
        self._allocate, self._random_bytes = allocate, random_bytes
        self._nonce_ns = round(nonce_s * _NS_PER_S)
        self._lock = threading.RLock()
        self._grant_key = GrantKey()
        self._accepted: dict[str, Accepted] = {}
        self._poll: tuple[bytes, int] | None = None
        self._told: tuple[int, int] | None = None
        self._pending: _Pending | None = None
        self._current: Watchlist | None = None

    @property
    def current(self) -> Watchlist | None:
        """The list in use. Whoever matches reads it once per frame, without a lock."""
        return self._current

    @property
    def in_use(self) -> tuple[str, int]:
        """Id and version of the list in use, ("", 0) for none: what a poll tells."""
        current = self._current
        return (current.list_id, current.version) if current else ("", 0)

    @property
    def grant_key_public(self) -> bytes:
        """What grants are to be sealed to; for Hello."""
        with self._lock:
            return self._grant_key.public

    @property
    def floors(self) -> dict[str, int]:
        """The newest version ever accepted of each list, as far as this boot knows."""
        with self._lock:
            return {list_id: known.version for list_id, known in self._accepted.items()}

    def raise_floors(self, floors: Iterable[tuple[str, int]]) -> None:
        """Take in what the link service remembers of earlier boots; never lowers one.

        A link service that lies can keep lists out, which it can do anyhow, and let none in. At
        most FLOORS_MAX lists are remembered, so that it cannot fill the memory either.
        """
        with self._lock:
            for list_id, version in floors:
                known = self._accepted.get(list_id)
                if known is None and len(self._accepted) >= FLOORS_MAX:
                    continue
                if known is None or known.version < version:
                    self._accepted[list_id] = Accepted(version)

    def new_nonce(self, *, now_ns: int) -> bytes:
        """16 random bytes for the next poll; answers to earlier polls are stale from now on."""
        with self._lock:
            nonce = self._random_bytes(_NONCE_BYTES)
            self._poll = (nonce, now_ns)
            return nonce

    def offer(self, offer: Offer, *, now_ns: int) -> Wanted:
        """The answer to the last poll. It uses up the poll's nonce, whatever it is.

        Args:
            offer: as it came.
            now_ns: CLOCK_BOOTTIME.

        Raises:
            WatchlistError: the first check that failed, by its subclass; nothing has changed.
        """
        with self._lock:
            self.tick(now_ns=now_ns)
            nonce = self._take_nonce(now_ns)
            if not offer.head:
                return self._obey(self._admission.order(offer, nonce=nonce))
            try:
                return self._consider(offer, nonce, now_ns)
            except SecretMemoryError as e:
                raise OversizedListError(f"the list does not fit here: {e}") from e

    def piece(self, index: int, sealed: bytes, *, now_ns: int) -> bool:
        """One fetched piece.

        Args:
            index: of the piece, one of Wanted.pieces.
            sealed: ciphertext, as it came.
            now_ns: CLOCK_BOOTTIME.

        Returns:
            True if it was the last one, and the list is in use now.

        Raises:
            DigestError: it is not the piece that was signed; what there is stays, fetch it again.
            ExpiredError: nothing is being opened, or its lease is over.
            TemplateError, ListFormatError: signed, yet no list; all of it was wiped.
        """
        with self._lock:
            self.tick(now_ns=now_ns)
            pending = self._pending
            if pending is None:
                raise ExpiredError(f"piece {index}: no list is being opened, or not any more")
            try:
                pending.opening.add(index, sealed)
                if pending.opening.missing:
                    return False
                self._swap(pending)
            except DigestError:
                raise
            except WatchlistError:
                self._drop_pending()
                raise
            return True

    def nothing_new(self) -> None:
        """The last poll was answered without an offer: overwrite a list that is half here.

        It was withdrawn before it came into use, and a controller withdraws by name what a poll
        names. Whoever answers so falsely makes the node fetch it again, and no more.
        """
        with self._lock:
            self._drop_pending()

    def tick(self, *, now_ns: int) -> bool:
        """End what has come to its end by CLOCK_BOOTTIME; call it about once a second.

        Returns:
            True if the list in use has ended just now; it is overwritten.
        """
        with self._lock:
            if self._pending is not None and now_ns >= self._pending.lease_end_ns:
                self._drop_pending()
            current = self._current
            if current is None or now_ns < current.lease_end_ns:
                return False
            self._drop_current()
            return True

    def wipe(self) -> None:
        """Overwrite everything that is open and make a new grant key; before the process ends."""
        with self._lock:
            self._drop_pending()
            self._drop_current()
            self._grant_key = GrantKey()

    def _consider(self, offer: Offer, nonce: bytes | None, now_ns: int) -> Wanted:
        admitted = self._admission.list(
            offer,
            nonce=nonce,
            accepted=self._accepted,
            utc_ms=self._utc_ms(now_ns),
            grant_key=self._grant_key,
            allocate=self._allocate,
        )
        try:
            return self._admit(admitted, offer.digests, now_ns)
        finally:
            admitted.content_key.wipe()

    def _take_nonce(self, now_ns: int) -> bytes | None:
        poll, self._poll = self._poll, None
        if poll is None or now_ns - poll[1] > self._nonce_ns:
            return None
        return poll[0]

    def _utc_ms(self, now_ns: int) -> int:
        """What the latest time that a stamp told has become by now; 0 before the first."""
        if self._told is None:
            return 0
        utc_ms, then_ns = self._told
        return utc_ms + (now_ns - then_ns) // _NS_PER_MS

    def _obey(self, stamp: Stamp) -> Wanted:
        if stamp.action is Action.WIPE:
            self.wipe()
        else:
            pending, current = self._pending, self._current
            if pending is not None and pending.admitted.header.list_id == stamp.list_id:
                self._drop_pending()
            if current is not None and current.list_id == stamp.list_id:
                self._drop_current()
        return Wanted(stamp.action, stamp.list_id, stamp.version)

    def _admit(self, admitted: Admitted, digests: bytes, now_ns: int) -> Wanted:
        header, stamp = admitted.header, admitted.stamp
        lease_end_ns = _lease_end_ns(admitted, now_ns)
        if self.in_use == (header.list_id, header.version) and self._current is not None:
            # The same list: _no_older has seen to it that its header is the same, too.
            self._drop_pending()
            self._current = replace(self._current, lease_end_ns=lease_end_ns)
            missing: tuple[int, ...] = ()
        else:
            missing = self._expect(admitted, digests, lease_end_ns)
        self._told = (admitted.utc_ms, now_ns)
        return Wanted(stamp.action, header.list_id, header.version, missing)

    def _expect(self, admitted: Admitted, digests: bytes, lease_end_ns: int) -> tuple[int, ...]:
        """Go on with a list of which pieces are here already, or begin with another."""
        pending = self._pending
        if pending is not None and pending.admitted.header_sha256 == admitted.header_sha256:
            pending.admitted, pending.lease_end_ns = admitted, lease_end_ns
            return pending.opening.missing
        self._drop_pending()
        header = admitted.header
        opening = Opening(
            header=header,
            digests=digests,
            sealer=Sealer(
                admitted.content_key.view,
                list_id=header.list_id,
                version=header.version,
                pieces=header.pieces,
            ),
            columns=admitted.scales.keys(),
            allocate=self._allocate,
        )
        self._pending = _Pending(admitted, opening, lease_end_ns)
        return opening.missing

    def _swap(self, pending: _Pending) -> None:
        """Every check is passed: the one place where a list comes into use."""
        header = pending.admitted.header
        subjects, columns = pending.opening.finish()
        before, self._current = (
            self._current,
            Watchlist(
                list_id=header.list_id,
                version=header.version,
                deployment=header.deployment,
                subjects=subjects,
                lease_end_ns=pending.lease_end_ns,
                columns=columns,
                scales=pending.admitted.scales,
            ),
        )
        self._pending = None
        self._accepted[header.list_id] = Accepted(header.version, pending.admitted.header_sha256)
        if before is not None:
            before.wipe()

    def _drop_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.opening.wipe()

    def _drop_current(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.wipe()


def _lease_end_ns(admitted: Admitted, now_ns: int) -> int:
    """The lease's end, or the list's or the deployment's if that is sooner."""
    stamp = admitted.stamp
    ends_utc_ms = [
        admitted.header.expires_utc_ms,
        stamp.until_utc_ms or admitted.header.expires_utc_ms,
    ]
    left_ns = (min(ends_utc_ms) - admitted.utc_ms) * _NS_PER_MS
    return now_ns + min(stamp.lease_s * _NS_PER_S, left_ns)
