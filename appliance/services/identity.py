"""The watch service's own key, which signs its hellos and its alerts."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from appliance.errors import IdentityError

_MAX_BYTES = 4096


def load_identity(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key that `picket join` made.

    Args:
        path: as configured. Where systemd hands the service a credential of the same name
            (LoadCredential=, systemd.exec(5)), that is read instead.

    Raises:
        IdentityError: missing, unreadable, or no Ed25519 key; names the file.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and (Path(credentials) / path.name).is_file():
        path = Path(credentials) / path.name
    try:
        with path.open("rb") as file:
            pem = file.read(_MAX_BYTES)
    except FileNotFoundError as e:
        raise IdentityError(f"{path}: missing: this node has not joined (picket join)") from e
    except OSError as e:
        raise IdentityError(f"{path}: cannot be read: {e.strerror}") from e
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise IdentityError(f"{path}: no private key in PEM without a password") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{path}: is no Ed25519 key")
    return key
