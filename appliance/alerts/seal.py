"""An alert is signed and closed before it leaves the watch service; only the controller opens it.

Signed by the watch service's own key, so that neither the link service nor whoever has the card
can make one up; sealed by HPKE (RFC 9180, hybrid ML-KEM-768 + X25519, HKDF-SHA256,
ChaCha20-Poly1305) to the controller's alert key, so that neither can read who was seen when.
Node, boot and sequence are bound into it: a row cannot be given another number. No I/O in here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from appliance.errors import SealedAlertError, WireError
from appliance.wire import ALERT_MAX_BYTES, Alert, Row, decode_alert, encode

ALERT_KEY_BYTES = 1216
"""ML-KEM-768's public key of 1,184 bytes, then X25519's of 32."""
ALERT_KEY_PRIVATE_BYTES = 96
"""ML-KEM-768's seed of 64 bytes, then X25519's private key of 32."""

_MLKEM_PUBLIC_BYTES, _MLKEM_SEED_BYTES = 1184, 64
_SIGNATURE_BYTES = 64
_CONTEXT = b"picket alert/1\0"
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
_encoder = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True, eq=False)
class AlertKey:
    """The controller's public key, to which alerts are sealed."""

    hpke_key: hpke.MLKEM768X25519PublicKey
    raw: bytes

    @classmethod
    def load(cls, raw: bytes) -> Self:
        """From its ALERT_KEY_BYTES raw bytes.

        Raises:
            SealedAlertError: they are no such key.
        """
        if len(raw) != ALERT_KEY_BYTES:
            raise SealedAlertError(f"alert key of {len(raw)} bytes: must be {ALERT_KEY_BYTES}")
        try:
            kem = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_BYTES])
        except ValueError as e:
            raise SealedAlertError(f"no alert key: {e}") from e
        curve = X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_BYTES:])
        return cls(hpke.MLKEM768X25519PublicKey(kem, curve), raw)


@dataclass(frozen=True, slots=True, eq=False)
class AlertPrivateKey:
    """The controller's private key, which opens alerts.

    Attributes:
        raw: ALERT_KEY_PRIVATE_BYTES; secret.
        public: what nodes get.
    """

    hpke_key: hpke.MLKEM768X25519PrivateKey
    raw: bytes = field(repr=False)
    public: AlertKey

    @classmethod
    def generate(cls) -> Self:
        """A new one."""
        seed = MLKEM768PrivateKey.generate().private_bytes_raw()
        return cls.load(seed + X25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def load(cls, raw: bytes) -> Self:
        """From its ALERT_KEY_PRIVATE_BYTES raw bytes.

        Raises:
            SealedAlertError: they are no such key.
        """
        if len(raw) != ALERT_KEY_PRIVATE_BYTES:
            raise SealedAlertError(
                f"private alert key of {len(raw)} bytes: must be {ALERT_KEY_PRIVATE_BYTES}"
            )
        kem = MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM_SEED_BYTES])
        curve = X25519PrivateKey.from_private_bytes(raw[_MLKEM_SEED_BYTES:])
        public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        return cls(hpke.MLKEM768X25519PrivateKey(kem, curve), raw, AlertKey.load(public))


def seal_alert(alert: Alert, *, identity: Ed25519PrivateKey, alert_key: AlertKey) -> Row:
    """The row that leaves the watch service.

    Args:
        alert: numbered: its sequence is 1 or more.
        identity: the watch service's own key.
        alert_key: the controller's.

    Raises:
        WireError: the alert is longer than may leave, or not numbered.
    """
    if alert.sequence < 1:
        raise WireError(f"alert with sequence {alert.sequence}: number it before it is sealed")
    encoded = encode(alert)
    opened = identity.sign(_CONTEXT + encoded) + encoded
    info = _info(alert.node, alert.boot, alert.sequence)
    sealed = _SUITE.encrypt(opened, alert_key.hpke_key, info=info)
    return Row(alert.boot, alert.sequence, sealed)


def open_alert(
    row: Row, *, node: str, watch_key: Ed25519PublicKey, alert_key: AlertPrivateKey
) -> Alert:
    """The alert of a row.

    Args:
        row: as it came.
        node: who sent it: the common name of its certificate.
        watch_key: that node's, as it was registered when it joined.
        alert_key: the controller's.

    Raises:
        SealedAlertError: it does not open, is not signed by that node's watch service, or is not
            the alert that its row and sender say it is.
        WireError: it opens and is signed, yet is no alert.
    """
    named = f"alert {row.sequence} of '{node}'"
    try:
        opened = _SUITE.decrypt(
            row.sealed, alert_key.hpke_key, info=_info(node, row.boot, row.sequence)
        )
    except (InvalidTag, ValueError) as e:
        raise SealedAlertError(f"{named}: does not open") from e
    if len(opened) > _SIGNATURE_BYTES + ALERT_MAX_BYTES:
        raise SealedAlertError(f"{named}: {len(opened)} bytes inside, too long for an alert")
    signature, encoded = opened[:_SIGNATURE_BYTES], opened[_SIGNATURE_BYTES:]
    try:
        watch_key.verify(signature, _CONTEXT + encoded)
    except InvalidSignature as e:
        raise SealedAlertError(f"{named}: not signed by its watch service") from e
    alert = decode_alert(encoded)
    if (alert.node, alert.boot, alert.sequence) != (node, row.boot, row.sequence):
        raise SealedAlertError(
            f"{named}: inside it is alert {alert.sequence} of '{alert.node}', or of another boot"
        )
    return alert


def _info(node: str, boot: bytes, sequence: int) -> bytes:
    return _CONTEXT + _encoder.encode((node, boot, sequence))
