"""A stamp: the controller's signed word on what a node is to do now. Freshness without a clock.

It answers one poll by repeating its nonce, so an old stamp says nothing, and it brings the time:
a node needs no clock of its own to know whether a list is valid yet, or still. It names one head
of one list by its digest, so that no other can be put in its place. A withdraw or wipe closes
what is open, and as it costs no key to obey, it needs no list with it.

In go bytes of strangers or facts; the signature is checked before anything is decoded.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from appliance.errors import OversizedListError, StampError
from appliance.wire import STAMP_MAX_BYTES, Count, Id16, Name, NameOrNone, Signature

LEASE_MAX_S = 7 * 86_400
_SIGNED_AS = b"picket stamp/1\0"


class Action(StrEnum):
    """What a stamp orders."""

    GRANT = "grant"
    """Open this list, or keep it open: its head, digests and grant come with the stamp."""
    WITHDRAW = "withdraw"
    """Close this list; the deployment is over."""
    WIPE = "wipe"
    """Close every list and forget the grant key: nothing sealed to it opens again."""


class Stamp(msgspec.Struct, frozen=True, array_like=True, tag="stamp/1"):
    """What the controller's online key signs.

    Attributes:
        action: what to do.
        node: who is to do it.
        nonce: that of the poll which this answers.
        now_utc_ms: the time, when it was signed.
        list_id, version: of the list; "" and 0 with a wipe.
        head_sha256: of the head that comes with a grant, else empty.
        deployment: as in the list's header; "" with a wipe.
        lease_s: how long the list may stay open without another stamp; 0 unless granted.
        until_utc_ms: planned end of the deployment; 0: none, the lease alone ends it.
    """

    action: Action
    node: Name
    nonce: Id16
    now_utc_ms: Count
    list_id: NameOrNone = ""
    version: Count = 0
    head_sha256: Annotated[bytes, Meta(max_length=32)] = b""
    deployment: NameOrNone = ""
    lease_s: Annotated[int, Meta(ge=0, le=LEASE_MAX_S)] = 0
    until_utc_ms: Count = 0


class _Envelope(msgspec.Struct, frozen=True, array_like=True):
    stamp: Annotated[bytes, Meta(min_length=1, max_length=STAMP_MAX_BYTES)]
    signature: Signature


_encoder = msgspec.msgpack.Encoder()
_stamps: msgspec.msgpack.Decoder[Stamp] = msgspec.msgpack.Decoder(Stamp)
_envelopes: msgspec.msgpack.Decoder[_Envelope] = msgspec.msgpack.Decoder(_Envelope)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def make_stamp(stamp: Stamp, online_key: Ed25519PrivateKey) -> bytes:
    """A stamp, signed, as Offer.stamp carries it.

    Raises:
        StampError: a field is outside its bound.
    """
    signed = _encoder.encode(stamp)
    _decode(signed)
    return _encoder.encode(_Envelope(signed, online_key.sign(_SIGNED_AS + signed)))


def open_stamp(stamped: bytes, online_key: Ed25519PublicKey) -> Stamp:
    """What the controller said; whether it was said to this node and now is trusted.py's to ask.

    Raises:
        OversizedListError: longer than a stamp may be.
        StampError: not signed by the online key, or not a stamp.
    """
    if len(stamped) > STAMP_MAX_BYTES:
        raise OversizedListError(f"stamp of {len(stamped)} bytes: at most {STAMP_MAX_BYTES}")
    try:
        envelope = _envelopes.decode(stamped)
        online_key.verify(envelope.signature, _SIGNED_AS + envelope.stamp)
    except _UNREADABLE as e:
        raise StampError(f"not a stamp: {e}") from e
    except InvalidSignature as e:
        raise StampError("stamp not signed by the controller's online key") from e
    return _decode(envelope.stamp)


def _decode(signed: bytes) -> Stamp:
    try:
        stamp = _stamps.decode(signed)
    except _UNREADABLE as e:
        raise StampError(f"not a stamp: {e}") from e
    if stamp.action is Action.GRANT and not (
        stamp.list_id and stamp.version and len(stamp.head_sha256) == 32 and stamp.lease_s  # noqa: PLR2004 - SHA-256
    ):
        raise StampError("a stamp that grants must name list, version, head and lease")
    if stamp.action is Action.WITHDRAW and not stamp.list_id:
        raise StampError("a stamp that withdraws must name the list")
    return stamp
