"""The form of a list that goes to nodes: a signed head, digests, and pieces of ciphertext.

head     a header and the authorities' signatures over its bytes; all that is said in the open
digests  SHA-256 of each piece, one after the other; their own SHA-256 is in the header
pieces   the body, cut and sealed one by one under a random content key (watchlist/pieces.py)

The same bytes go to every node and through the hands of everyone between; each can be checked
against the one before it, so a list is fetched piece by piece, from anywhere, in any order.
What enters here are bytes of strangers; nothing is opened and nothing decided (trusted.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from appliance.errors import ListFormatError, OversizedListError, SignatureError
from appliance.wire import HEAD_MAX_BYTES, Count, Fraction, Key32, Name, Signature

WHOLE = "whole"
"""The column of faces that nothing hides; every list has it."""

SIGNATURES_MAX = 8
SUBJECTS_MAX = 1_000_000
TEMPLATES_MAX = 1_000_000
DIM_MAX = 2048
INDEX_MAX_BYTES = 64 * 2**20
_SIGNED_AS = b"picket list/1\0"

Text = Annotated[str, Meta(min_length=1, max_length=200)]
"""For people, such as a legal basis."""


class ColumnHeader(msgspec.Struct, frozen=True, array_like=True):
    """Templates that were made in the same way and are compared only with probes made so.

    Attributes:
        name: "whole", or which part of the face was hidden.
        model: id of the embedder.
        dim: numbers in a template.
        templates: rows.
    """

    name: Name
    model: Name
    dim: Annotated[int, Meta(ge=1, le=DIM_MAX)]
    templates: Annotated[int, Meta(ge=1, le=TEMPLATES_MAX)]


class Header(msgspec.Struct, frozen=True, array_like=True, tag="list/1"):
    """What an authority signs.

    Attributes:
        list_id: stays the same from version to version.
        version: increases; a node never goes back.
        fleet: whose nodes may open it.
        created_utc_ms: for the record.
        not_before_utc_ms, expires_utc_ms: a node opens it from then, and until then.
        deployment: the authorisation under which it is used.
        legal_basis, officer: who answers for it, as the record must show.
        columns: at least the one called "whole"; names differ.
        subjects: in the index.
        target_fpir: tolerable false alerts per passer-by who is not on the list.
        threshold_floor: no cosine below this is ever a match.
        index_bytes: of the body's first part; see pieces.Index.
        pieces: of the body; follows from the fields above (pieces.Layout).
        digests_sha256: of the digests, one after the other.
        key_sha256: `key_commitment` of the content key.
    """

    list_id: Name
    version: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    fleet: Name
    created_utc_ms: Count
    not_before_utc_ms: Count
    expires_utc_ms: Count
    deployment: Name
    legal_basis: Text
    officer: Text
    columns: Annotated[tuple[ColumnHeader, ...], Meta(min_length=1, max_length=8)]
    subjects: Annotated[int, Meta(ge=1, le=SUBJECTS_MAX)]
    target_fpir: Annotated[float, Meta(gt=0.0, lt=1.0)]
    threshold_floor: Fraction
    index_bytes: Annotated[int, Meta(ge=1, le=INDEX_MAX_BYTES)]
    pieces: Annotated[int, Meta(ge=1)]
    digests_sha256: Key32
    key_sha256: Key32


class Signed(msgspec.Struct, frozen=True, array_like=True):
    """One authority's signature; `authority` is its public key, which is its name as well."""

    authority: Key32
    signature: Signature


class Head(msgspec.Struct, frozen=True, array_like=True, tag="head/1"):
    """The header as the bytes that were signed, and who signed them."""

    header: Annotated[bytes, Meta(min_length=1, max_length=HEAD_MAX_BYTES)]
    signatures: Annotated[tuple[Signed, ...], Meta(max_length=SIGNATURES_MAX)]


_encoder = msgspec.msgpack.Encoder()
_heads: msgspec.msgpack.Decoder[Head] = msgspec.msgpack.Decoder(Head)
_headers: msgspec.msgpack.Decoder[Header] = msgspec.msgpack.Decoder(Header)


def key_commitment(content_key: bytes | memoryview) -> bytes:
    """What the header says of the content key: the one key that fits, and nothing about it."""
    digest = hashlib.sha256(b"picket content key/1\0")
    digest.update(content_key)
    return digest.digest()


def unsigned(header: Header) -> bytes:
    """A head that nobody has signed yet.

    Raises:
        ListFormatError: a field is outside its bound, or fields contradict each other.
    """
    encoded = _encoder.encode(header)
    parse_header(encoded)
    return _head(encoded, ())


def sign(head: bytes, authority: Ed25519PrivateKey) -> bytes:
    """The head with one more signature; signing again replaces the authority's own.

    Raises:
        OversizedListError, ListFormatError: not a head of a list, or full of signatures.
    """
    parsed = parse_head(head)
    parse_header(parsed.header)  # nobody signs what is no list
    public = authority.public_key().public_bytes_raw()
    signature = Signed(public, authority.sign(_SIGNED_AS + parsed.header))
    others = tuple(s for s in parsed.signatures if s.authority != public)
    return _head(parsed.header, (*others, signature))


def parse_head(head: bytes) -> Head:
    """The envelope alone: its header is not looked into before its signatures are.

    Raises:
        OversizedListError: longer than a head may be.
        ListFormatError: not a head.
    """
    if len(head) > HEAD_MAX_BYTES:
        raise OversizedListError(f"head of {len(head)} bytes: at most {HEAD_MAX_BYTES} are read")
    try:
        return _heads.decode(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise ListFormatError(f"not the head of a list: {e}") from e


def signers(head: Head, authorities: Collection[bytes]) -> frozenset[bytes]:
    """Which of the trusted authorities have signed; one that signs twice counts once.

    Args:
        head: see `parse_head`.
        authorities: Ed25519 public keys, 32 bytes each.
    """
    return frozenset(
        s.authority for s in head.signatures if s.authority in authorities and _holds(s, head)
    )


def check_signatures(head: Head, authorities: Collection[bytes], needed: int) -> None:
    """Enough of the trusted authorities have signed, each counted once.

    Raises:
        SignatureError: fewer than needed.
    """
    signed = len(signers(head, authorities))
    if signed < needed:
        raise SignatureError(
            f"signed by {signed} of {len(set(authorities))} trusted authorities:"
            f" {needed} must have signed"
        )


def parse_header(header: bytes) -> Header:
    """What was signed.

    Raises:
        ListFormatError: not a header, a field is outside its bound, or fields contradict.
    """
    try:
        parsed = _headers.decode(header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise ListFormatError(f"not the header of a list: {e}") from e
    names = [column.name for column in parsed.columns]
    if WHOLE not in names or len(set(names)) != len(names):
        raise ListFormatError(f"columns {names}: must differ, and one must be '{WHOLE}'")
    if parsed.not_before_utc_ms >= parsed.expires_utc_ms:
        raise ListFormatError(
            f"valid from {parsed.not_before_utc_ms} to {parsed.expires_utc_ms} (UTC, ms): never"
        )
    return parsed


def _head(header: bytes, signatures: tuple[Signed, ...]) -> bytes:
    encoded = _encoder.encode(Head(header, signatures))
    parse_head(encoded)
    return encoded


def _holds(signed: Signed, head: Head) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(signed.authority)
        key.verify(signed.signature, _SIGNED_AS + head.header)
    except (InvalidSignature, ValueError):  # ValueError: no point of the curve
        return False
    return True
