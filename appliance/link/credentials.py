"""What a node shows to the controllers: a key made here, and a certificate for it.

tls.key   P-256, never leaves the node
tls.crt   the controller's certificate for it, subject CN = node
ca.crt    the fleet's authority, by which controllers are known
tls.next  key and certificate together, only while both are being replaced

Enters: the link's state folder, a controller's answer. Leaves: settings for a socket. Nothing in
here asks anybody anything: joining is services/join.py, renewing renewal.py.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from appliance.errors import IdentityError
from appliance.link.file import replace, sync_folder
from appliance.link.membership import CERTIFICATE, joined
from appliance.link.tls import ClientTls

KEY, AUTHORITY = "tls.key", "ca.crt"
_NEXT = "tls.next"
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_PRIVATE, _PUBLIC = 0o600, 0o640
_MAX_BYTES = 64 * 1024


def new_key() -> EllipticCurvePrivateKey:
    """A P-256 key: what the TLS under NNG loads fastest."""
    return generate_private_key(SECP256R1())


def key_pem(key: EllipticCurvePrivateKey) -> bytes:
    """A key as PEM, not encrypted: for a file that nobody else may read."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def request_for(key: EllipticCurvePrivateKey, node: str) -> bytes:
    """A certificate request, PEM, subject CN = node and nothing else."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def check(certificate: bytes, *, key: EllipticCurvePrivateKey, node: str, ca: bytes) -> None:
    """Whether a controller's answer is what was asked for. No clock is asked: a Pi's may be wrong.

    Raises:
        IdentityError: no certificate, or of another key, node or authority.
    """
    try:
        issued, authority = x509.load_pem_x509_certificate(certificate), x509_certificate(ca)
        issued.verify_directly_issued_by(authority)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise IdentityError(f"the controller's answer is no certificate of this fleet: {e}") from e
    except InvalidSignature as e:
        raise IdentityError("the certificate is signed by another authority") from e
    named = [(attribute.oid, attribute.value) for attribute in issued.subject]
    if named != [(NameOID.COMMON_NAME, node)]:
        raise IdentityError(f"the certificate is not for {node}")
    if issued.public_key() != key.public_key():
        raise IdentityError("the certificate is for another key")


def x509_certificate(pem: bytes) -> x509.Certificate:
    """A certificate from its PEM.

    Raises:
        IdentityError: it is none.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as e:
        raise IdentityError(f"not a certificate: {e}") from e


def load(state: Path, server_name: str) -> ClientTls:
    """What to show and whom to believe. A replacement that a power cut stopped is finished first.

    Args:
        state: the link's folder.
        server_name: common name of the controllers' certificate.

    Raises:
        IdentityError: this node has not joined, or a file is broken; names it.
        CardError: a replacement cannot be finished.
    """
    if (state / _NEXT).exists():
        _finish(state)
    if not joined(state):
        raise IdentityError(f"{state}: no certificate: this node has not joined (picket join)")
    return ClientTls(
        ca=_read(state / AUTHORITY),
        server_name=server_name,
        certificate=_read(state / CERTIFICATE),
        key=_read(state / KEY),
    )


def load_key(path: Path) -> EllipticCurvePrivateKey:
    """A key of this node's, such as tls.key.

    Raises:
        IdentityError: missing or broken; names it.
    """
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise IdentityError(f"{path}: no private key in PEM without a password") from e
    if not isinstance(key, EllipticCurvePrivateKey):
        raise IdentityError(f"{path}: is no P-256 key")
    return key


def life(state: Path) -> tuple[datetime, datetime]:
    """From when until when the certificate in use is valid, UTC.

    Raises:
        IdentityError: missing or broken.
    """
    certificate = x509_certificate(_read(state / CERTIFICATE))
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def swap(state: Path, key: EllipticCurvePrivateKey, certificate: bytes) -> None:
    """Replace key and certificate, both or neither, whenever the power is cut.

    Args:
        state: the link's folder.
        key: new.
        certificate: for it, PEM, checked.

    Raises:
        CardError: nothing was replaced, or `load` will finish it.
    """
    replace(state / _NEXT, key_pem(key) + certificate, mode=_PRIVATE)
    _finish(state)


def keep_authority(state: Path, ca: bytes) -> None:
    """Write whom to believe.

    Raises:
        CardError: who was believed before still is.
    """
    replace(state / AUTHORITY, ca, mode=_PUBLIC)


def _finish(state: Path) -> None:
    """The second half of `swap`; again, from wherever it was stopped, does no harm."""
    key, begin, certificate = _read(state / _NEXT).partition(_BEGIN)
    if not begin:
        raise IdentityError(f"{state / _NEXT}: is not a key and its certificate")
    replace(state / KEY, key, mode=_PRIVATE)
    replace(state / CERTIFICATE, begin + certificate, mode=_PUBLIC)
    (state / _NEXT).unlink()
    sync_folder(state)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except FileNotFoundError as e:
        raise IdentityError(f"{path}: missing") from e
    except OSError as e:
        raise IdentityError(f"{path}: cannot be read: {e.strerror}") from e
