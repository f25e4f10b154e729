"""The files of a fleet folder, one by one: made once, read back, named when they are broken."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import tomli_w
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from appliance.controller import identity
from appliance.controller.identity import Authority
from appliance.errors import IdentityError
from appliance.link.file import replace, sync_folder

MLKEM_SEED_BYTES = 64
ALERT_KEY_BYTES = MLKEM_SEED_BYTES + 32
PRIVATE, PUBLIC = 0o600, 0o644
_FOLDER = 0o700
_FILE_MAX_BYTES = 16 * 1024 * 1024
"""A revocation list of 100,000 certificates has 3.6 MB."""


def make(
    folder: Path,
    document: dict[str, object],
    *,
    name: str,
    server_name: str,
    authorities: Sequence[str],
    now: datetime,
) -> None:
    """Every file of a new fleet, under another name until all are on the disk.

    Args:
        folder: missing or empty.
        document: of fleet.toml.
        name: of the fleet.
        server_name: of the controller's certificate.
        authorities: whose keys to make.
        now: with a time zone.
    """
    partial = folder.parent / f".{folder.name}.partial"
    if partial.exists():  # of a process that was killed: nobody has used these keys
        shutil.rmtree(partial)
    (partial / "authorities").mkdir(parents=True, mode=_FOLDER)
    partial.chmod(_FOLDER)
    authority = identity.new_authority(name, now)
    replace(partial / "ca.key", identity.private_pem(authority.key), mode=PRIVATE)
    replace(partial / "ca.crt", identity.pem(authority.certificate), mode=PUBLIC)
    replace(partial / "controller.key", identity.private_pem(identity.new_key()), mode=PRIVATE)
    certify_controller(partial, authority, server_name, now)
    replace(partial / "online.key", _ed25519_pem(Ed25519PrivateKey.generate()), mode=PRIVATE)
    alert_key = (
        MLKEM768PrivateKey.generate().private_bytes_raw()
        + X25519PrivateKey.generate().private_bytes_raw()
    )
    replace(partial / "alert.key", alert_key, mode=PRIVATE)
    for authority_name in authorities:
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        replace(partial / "authorities" / f"{authority_name}.key", _ed25519_pem(key), mode=PRIVATE)
        replace(partial / "authorities" / f"{authority_name}.pub", public, mode=PUBLIC)
    crl = identity.revocations(authority, (), 1, now)
    replace(partial / "crl.pem", crl, mode=PUBLIC)
    replace(partial / "fleet.toml", tomli_w.dumps(document).encode(), mode=PUBLIC)
    partial.rename(folder)
    sync_folder(folder.parent)


def certify_controller(folder: Path, authority: Authority, name: str, now: datetime) -> None:
    """Write controller.crt for the key in controller.key.

    Raises:
        IdentityError: the key is missing or broken.
    """
    path = folder / "controller.key"
    key = _private(path)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise IdentityError(f"{path}: is no P-256 key")
    issued = identity.issue_controller(authority, name, key.public_key(), now)
    replace(folder / "controller.crt", identity.pem(issued), mode=PUBLIC)


def read(path: Path) -> bytes:
    """A file's content.

    Raises:
        IdentityError: missing or unreadable; names it.
    """
    try:
        with path.open("rb") as file:
            return file.read(_FILE_MAX_BYTES)
    except FileNotFoundError as e:
        raise IdentityError(f"{path}: missing") from e
    except OSError as e:
        raise IdentityError(f"{path}: cannot be read: {e.strerror}") from e


def certificate(path: Path) -> x509.Certificate:
    """A certificate.

    Raises:
        IdentityError: missing or broken; names it.
    """
    try:
        return x509.load_pem_x509_certificate(read(path))
    except ValueError as e:
        raise IdentityError(f"{path}: is no certificate") from e


def ed25519(path: Path) -> Ed25519PrivateKey:
    """A private key that signs.

    Raises:
        IdentityError: missing or broken; names it.
    """
    key = _private(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{path}: is no Ed25519 key")
    return key


def ed25519_public(path: Path) -> bytes:
    """A public key, 32 bytes.

    Raises:
        IdentityError: missing or broken; names it.
    """
    try:
        key = load_pem_public_key(read(path))
    except (ValueError, UnsupportedAlgorithm) as e:
        raise IdentityError(f"{path}: is no public key in PEM") from e
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError(f"{path}: is no Ed25519 key")
    return key.public_bytes_raw()


def alert_public_key(private: bytes) -> bytes:
    """What nodes seal alerts to: ML-KEM-768's public key, then X25519's; 1216 bytes."""
    seed, curve = private[:MLKEM_SEED_BYTES], private[MLKEM_SEED_BYTES:]
    kem = MLKEM768PrivateKey.from_seed_bytes(seed).public_key()
    point = X25519PrivateKey.from_private_bytes(curve).public_key()
    return kem.public_bytes_raw() + point.public_bytes_raw()


def _private(path: Path) -> object:
    try:
        return load_pem_private_key(read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise IdentityError(f"{path}: is no private key in PEM without a password") from e


def _ed25519_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
