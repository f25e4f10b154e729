"""Who is who in a fleet: its certificate authority, certificates, requests, revocations.

Keys, requests and times enter, certificates leave; no file is touched and no clock is asked.
Which serials were issued and revoked is the store's to remember.

Everything is P-256, which is what the TLS under NNG loads and compares fastest; subjects are a
common name and nothing else, because that is all that NNG tells of the other end and all that
compares exactly (appliance/link/tls.py). There are no alternative names, and a certificate says
in its extended key usage which end it may be, so that a node cannot stand in for a controller.

What a node checks is valid from two years before it was made, because a Pi may boot with the
clock of its image. A revocation list that has run out would refuse the whole fleet: it is valid
for as long as the authority, and revoking makes a new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from appliance.errors import IdentityError

AUTHORITY_LIFE = timedelta(days=3650)
CONTROLLER_LIFE = timedelta(days=365)
NODE_LIFE = timedelta(days=30)
SET_BACK = timedelta(days=730)
"""How far a node's clock may be behind, and still believe the authority and the controller."""
NODE_SET_BACK = timedelta(days=1)
"""How far controllers' clocks may be apart; little, as a node counts its certificate's life."""
CSR_MAX_BYTES = 4096
"""A P-256 request with a common name has about 450."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The fleet's certificate authority: whoever holds its key can make nodes and controllers."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey = field(repr=False)


def new_key() -> EllipticCurvePrivateKey:
    """A P-256 key."""
    return generate_private_key(SECP256R1())


def new_authority(name: str, now: datetime, life: timedelta = AUTHORITY_LIFE) -> Authority:
    """An authority that vouches for itself.

    Args:
        name: of the fleet, its common name.
        now: with a time zone.
        life: from now.
    """
    key = new_key()
    subject = _name(name)
    builder = _certificate(subject, subject, key.public_key(), now - SET_BACK, now + life)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    return Authority(builder.sign(key, SHA256()), key)


def issue_controller(
    authority: Authority,
    name: str,
    key: EllipticCurvePublicKey,
    now: datetime,
    life: timedelta = CONTROLLER_LIFE,
) -> x509.Certificate:
    """A certificate for the listening end, and for that alone."""
    purpose = ExtendedKeyUsageOID.SERVER_AUTH
    return _issue(authority, name, key, (now - SET_BACK, now + life), purpose)


def issue_node(
    authority: Authority,
    node: str,
    csr: bytes,
    now: datetime,
    life: timedelta = NODE_LIFE,
) -> x509.Certificate:
    """A certificate for the dialling end, for the key that asks for it.

    Nothing is taken over from the request but its key.

    Args:
        authority: that vouches.
        node: who has been established to be asking.
        csr: PEM, a stranger's bytes.
        now: with a time zone.
        life: from now.

    Raises:
        IdentityError: no request, not for this node, not P-256, or not signed by its own key.
    """
    key = _requested_key(csr, node)
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH
    return _issue(authority, node, key, (now - NODE_SET_BACK, now + life), purpose)


def revocations(
    authority: Authority,
    revoked: Iterable[tuple[int, datetime]],
    number: int,
    now: datetime,
) -> bytes:
    """The list of certificates that are no longer to be accepted, PEM.

    Args:
        authority: that signs.
        revoked: serial and time of every revocation so far.
        number: of the list, higher than every one before.
        now: with a time zone.
    """
    until = authority.certificate.not_valid_after_utc
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(max(now - SET_BACK, authority.certificate.not_valid_before_utc))
        .next_update(until)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    for serial, when in sorted(revoked):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, SHA256()).public_bytes(Encoding.PEM)


def revoked_in(crl: bytes, authority: x509.Certificate) -> tuple[int, list[tuple[int, datetime]]]:
    """(number, serials and times) of a revocation list, to extend it.

    Raises:
        IdentityError: not a list, or not of this authority.
    """
    try:
        read = x509.load_pem_x509_crl(crl)
        number = read.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (ValueError, x509.ExtensionNotFound) as e:
        raise IdentityError(f"not a revocation list: {e}") from e
    key = authority.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not read.is_signature_valid(key):
        raise IdentityError("the revocation list is another authority's")
    return number, [(entry.serial_number, entry.revocation_date_utc) for entry in read]


def load_authority(certificate: bytes, key: bytes) -> Authority:
    """An authority from its PEM.

    Raises:
        IdentityError: not P-256, or the two do not go together.
    """
    try:
        cert = x509.load_pem_x509_certificate(certificate)
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise IdentityError(f"the authority's certificate or key cannot be read: {e}") from e
    if not isinstance(private, EllipticCurvePrivateKey):
        raise IdentityError("the authority's key is not P-256")
    if private.public_key() != cert.public_key():
        raise IdentityError("the authority's key is not that of its certificate")
    return Authority(cert, private)


def private_pem(key: EllipticCurvePrivateKey) -> bytes:
    """A key as PEM, not encrypted: for a file that nobody else may read."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def _requested_key(csr: bytes, node: str) -> EllipticCurvePublicKey:
    if len(csr) > CSR_MAX_BYTES:
        raise IdentityError(f"request of {len(csr)} bytes: at most {CSR_MAX_BYTES} are read")
    try:
        request = x509.load_pem_x509_csr(csr)
        named = [(attribute.oid, attribute.value) for attribute in request.subject]
        key, signed = request.public_key(), request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as e:
        raise IdentityError(f"not a certificate request: {e}") from e
    if named != [(NameOID.COMMON_NAME, node)]:
        raise IdentityError(f"the request's subject is not the common name {node} alone")
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise IdentityError(f"the key of {node} is not P-256")
    if not signed:
        raise IdentityError(f"the request is not signed by the key of {node}")
    return key


def _issue(
    authority: Authority,
    name: str,
    key: EllipticCurvePublicKey,
    valid: tuple[datetime, datetime],
    purpose: ObjectIdentifier,
) -> x509.Certificate:
    issuer = authority.certificate
    start = max(valid[0], issuer.not_valid_before_utc)
    end = min(valid[1], issuer.not_valid_after_utc)
    builder = _certificate(_name(name), issuer.subject, key, start, end)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    return builder.sign(authority.key, SHA256())


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*, digital_signature: bool = False, signs: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
