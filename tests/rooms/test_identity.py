"""The fleet's authority: what it certifies, what it refuses, what it takes back."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from appliance.controller import identity
from appliance.errors import IdentityError
from appliance.link.credentials import request_for

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AUTHORITY = identity.new_authority("market", NOW)
KEY = identity.new_key()
REQUEST = request_for(KEY, "cam-1")


def usages(certificate: x509.Certificate) -> list[object]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_a_nodes_certificate_says_its_name_and_its_end_and_nothing_else() -> None:
    issued = identity.issue_node(AUTHORITY, "cam-1", REQUEST, NOW)
    issued.verify_directly_issued_by(AUTHORITY.certificate)
    assert [(a.oid, a.value) for a in issued.subject] == [(NameOID.COMMON_NAME, "cam-1")]
    assert usages(issued) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert issued.public_key() == KEY.public_key()
    constraints = issued.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    with pytest.raises(x509.ExtensionNotFound):
        issued.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_a_controllers_certificate_is_for_the_listening_end() -> None:
    issued = identity.issue_controller(AUTHORITY, "controller", KEY.public_key(), NOW)
    issued.verify_directly_issued_by(AUTHORITY.certificate)
    assert usages(issued) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_authority_may_certify_and_revoke_but_not_make_authorities() -> None:
    extensions = AUTHORITY.certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert usage.crl_sign
    assert not usage.digital_signature


def test_lives_begin_in_the_past_and_end_within_their_issuers() -> None:
    node = identity.issue_node(AUTHORITY, "cam-1", REQUEST, NOW)
    assert node.not_valid_before_utc == NOW - identity.NODE_SET_BACK
    assert node.not_valid_after_utc == NOW + timedelta(days=30)
    ten_years = AUTHORITY.certificate
    assert ten_years.not_valid_before_utc == NOW - identity.SET_BACK
    assert ten_years.not_valid_after_utc == NOW + timedelta(days=3650)
    late = identity.issue_node(AUTHORITY, "cam-1", REQUEST, ten_years.not_valid_after_utc)
    assert late.not_valid_after_utc == ten_years.not_valid_after_utc
    early = identity.issue_controller(AUTHORITY, "c", KEY.public_key(), NOW - timedelta(days=9))
    assert early.not_valid_before_utc == ten_years.not_valid_before_utc


def test_every_serial_is_another() -> None:
    serials = {identity.issue_node(AUTHORITY, "cam-1", REQUEST, NOW).serial_number for _ in "1234"}
    assert len(serials) == 4


@pytest.mark.parametrize(
    "subject",
    [
        [(NameOID.COMMON_NAME, "cam-2")],
        [(NameOID.COMMON_NAME, "CAM-1")],
        [(NameOID.COMMON_NAME, "cam-1"), (NameOID.ORGANIZATION_NAME, "Acme")],
        [(NameOID.ORGANIZATION_NAME, "cam-1")],
        [(NameOID.COMMON_NAME, "cam-1"), (NameOID.COMMON_NAME, "cam-2")],
        [],
    ],
)
def test_a_request_in_another_name_is_refused(
    subject: list[tuple[x509.ObjectIdentifier, str]],
) -> None:
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    request = builder.sign(KEY, SHA256()).public_bytes(Encoding.PEM)
    with pytest.raises(IdentityError, match="common name cam-1 alone"):
        identity.issue_node(AUTHORITY, "cam-1", request, NOW)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-384", "RSA", "Ed25519"],
)
def test_a_request_for_another_kind_of_key_is_refused(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cam-1")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    request = builder.sign(key, digest).public_bytes(Encoding.PEM)
    with pytest.raises(IdentityError, match="the key of cam-1 is not P-256"):
        identity.issue_node(AUTHORITY, "cam-1", request, NOW)


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(REQUEST).public_bytes(Encoding.DER))
    theirs = x509.load_pem_x509_csr(request_for(identity.new_key(), "cam-1"))
    point = KEY.public_key().public_numbers().x.to_bytes(32, "big")
    other = theirs.public_key()
    assert isinstance(other, ec.EllipticCurvePublicKey)
    numbers = other.public_numbers()
    at = der.index(point)
    der[at : at + 64] = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    request = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    with pytest.raises(IdentityError, match="not signed by the key"):
        identity.issue_node(AUTHORITY, "cam-1", request, NOW)


def test_what_a_request_asks_for_beyond_its_key_is_not_granted() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cam-1")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    names = x509.SubjectAlternativeName([x509.DNSName("controller")])
    request = builder.add_extension(names, critical=False).sign(KEY, SHA256())
    issued = identity.issue_node(AUTHORITY, "cam-1", request.public_bytes(Encoding.PEM), NOW)
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        issued.extensions.get_extension_for_class(x509.SubjectAlternativeName)


@given(st.binary(max_size=5000))
def test_bytes_that_are_no_request_are_one_error(hostile: bytes) -> None:
    with pytest.raises(IdentityError):
        identity.issue_node(AUTHORITY, "cam-1", hostile, NOW)


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_a_damaged_request_is_refused_or_is_the_same_request(seed: int, changes: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - a fuzzer's
    damaged = bytearray(REQUEST)
    for _ in range(changes):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    try:
        issued = identity.issue_node(AUTHORITY, "cam-1", bytes(damaged), NOW)
    except IdentityError:
        return
    assert issued.public_key() == KEY.public_key()


def test_a_request_of_any_length_is_not_read() -> None:
    with pytest.raises(IdentityError, match="at most 4096 are read"):
        identity.issue_node(AUTHORITY, "cam-1", REQUEST * 20, NOW)


def test_a_revocation_list_lasts_as_long_as_its_authority_and_can_be_extended() -> None:
    first = identity.revocations(AUTHORITY, [(7, NOW)], 1, NOW)
    read = x509.load_pem_x509_crl(first)
    assert read.next_update_utc == AUTHORITY.certificate.not_valid_after_utc
    number, revoked = identity.revoked_in(first, AUTHORITY.certificate)
    assert (number, revoked) == (1, [(7, NOW)])
    later = NOW + timedelta(days=1)
    second = identity.revocations(AUTHORITY, [*revoked, (3, later)], number + 1, later)
    number, revoked = identity.revoked_in(second, AUTHORITY.certificate)
    assert number == 2
    assert dict(revoked) == {7: NOW, 3: later}


def test_another_authoritys_revocation_list_is_refused() -> None:
    other = identity.new_authority("market", NOW)
    with pytest.raises(IdentityError, match="another authority's"):
        identity.revoked_in(identity.revocations(other, (), 1, NOW), AUTHORITY.certificate)
    with pytest.raises(IdentityError, match="not a revocation list"):
        identity.revoked_in(b"nonsense", AUTHORITY.certificate)


def test_a_key_that_is_not_its_certificates_is_refused() -> None:
    certificate = identity.pem(AUTHORITY.certificate)
    assert identity.load_authority(certificate, identity.private_pem(AUTHORITY.key))
    with pytest.raises(IdentityError, match="not that of its certificate"):
        identity.load_authority(certificate, identity.private_pem(KEY))
    with pytest.raises(IdentityError, match="cannot be read"):
        identity.load_authority(certificate, b"")


def test_no_key_is_shown_by_accident() -> None:
    assert "key" not in repr(AUTHORITY).replace("KeyUsage", "")
