"""A grant: the content key of a list, sealed to the key that one boot of one node made in RAM.

HPKE (RFC 9180) over the hybrid KEM ML-KEM-768 + X25519, so that a grant recorded today stays
closed to tomorrow's machines. Everything that it is granted for is bound into `info`: a grant
opens for this node, boot, poll, list, deployment and lease, or not at all. No I/O in here.
"""

from __future__ import annotations

import ctypes

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from appliance.errors import GrantError, OversizedListError
from appliance.watchlist.memory import Allocate, SecretMemory
from appliance.wire import GRANT_KEY_BYTES, GRANT_MAX_BYTES

CONTENT_KEY_BYTES = 32
_MLKEM_PUBLIC_BYTES = 1184
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
_encoder = msgspec.msgpack.Encoder()


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """What a grant is for; both ends must say the same, or it does not open.

    Attributes:
        node, boot: whose key it is sealed to.
        nonce: of the poll that it answers.
        head_sha256: of the list's head.
        deployment, lease_s: as in the stamp beside it.
    """

    node: str
    boot: bytes
    nonce: bytes
    head_sha256: bytes
    deployment: str
    lease_s: int


def seal_grant(content_key: bytes, *, to: bytes, terms: Terms) -> bytes:
    """Grant a list to one boot of one node.

    Args:
        content_key: of the list, 32 bytes.
        to: Hello.grant_key, GRANT_KEY_BYTES.
        terms: what it is granted for.

    Raises:
        GrantError: `to` is no such key, or the content key has the wrong length.
    """
    if len(content_key) != CONTENT_KEY_BYTES or len(to) != GRANT_KEY_BYTES:
        raise GrantError(
            f"content key of {len(content_key)} bytes to a key of {len(to)}:"
            f" {CONTENT_KEY_BYTES} and {GRANT_KEY_BYTES} are needed"
        )
    try:
        public = hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(to[:_MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(to[_MLKEM_PUBLIC_BYTES:]),
        )
        return _SUITE.encrypt(content_key, public, info=_info(terms))
    except ValueError as e:
        raise GrantError(f"no grant can be sealed to this key: {e}") from e


class GrantKey:
    """A key pair made in RAM, for one boot. The private half never leaves this object.

    Attributes:
        public: ML-KEM-768's public key, then X25519's; what Hello.grant_key tells.
    """

    def __init__(self) -> None:
        kem, curve = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
        self._private = hpke.MLKEM768X25519PrivateKey(kem, curve)
        self.public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()

    def open_grant(self, grant: bytes, terms: Terms, allocate: Allocate) -> SecretMemory:
        """The content key, in secret memory of 32 bytes; whoever gets it wipes it.

        Raises:
            OversizedListError: longer than a grant may be.
            GrantError: sealed to another key, or for other terms, or not a grant.
        """
        if len(grant) > GRANT_MAX_BYTES:
            raise OversizedListError(f"grant of {len(grant)} bytes: at most {GRANT_MAX_BYTES}")
        try:
            opened = _SUITE.decrypt(grant, self._private, info=_info(terms))
        except (InvalidTag, ValueError) as e:
            raise GrantError("the grant is not for this boot of this node and this list") from e
        try:
            if len(opened) != CONTENT_KEY_BYTES:
                raise GrantError(f"a content key of {len(opened)} bytes: must be 32")
            kept = allocate(CONTENT_KEY_BYTES)
            kept.view[:] = opened
        finally:
            _overwrite(opened)
        return kept


def _info(terms: Terms) -> bytes:
    return b"picket grant/1\0" + _encoder.encode(terms)


def _overwrite(secret: bytes) -> None:
    """Overwrite a bytes object that nobody else holds: the library gives the key in one.

    Python knows no way to do so; CPython keeps the bytes at the end of the object, before a
    closing zero. Never for lengths 0 and 1, whose objects are shared.
    """
    if len(secret) > 1:
        ctypes.memset(id(secret) + bytes.__basicsize__ - 1, 0, len(secret))
