"""`picket join`: the only time that a node asks without a certificate.

1. keys     made here, and never anywhere else: TLS's (P-256), watch.key (Ed25519)
2. request  kept beside them: the same request again is the same join, if the answer gets lost
3. ask      at the join port; the controller is held against the authority in join.toml
4. check    the certificate is for this node and this key, by that authority
5. keep     ca.crt, then tls.key and tls.crt, whose presence says that this node has joined
6. erase    the token in join.toml is overwritten and the file removed; its digest is kept

Interrupted at any point, it is run again and goes on. A node that has joined joins again when it
is given another token, which is how it comes back after its certificate was revoked or has run
out. Nothing is printed in here.
"""

from __future__ import annotations

import logging
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec import Meta, Struct

from appliance.config import Config
from appliance.errors import CardError, IdentityError
from appliance.link import credentials, membership
from appliance.link.file import erase, replace
from appliance.link.nng import NngLink
from appliance.link.question import ask
from appliance.link.tls import ClientTls
from appliance.services.beacon import Beacon
from appliance.services.identity import load_identity
from appliance.services.process import listens
from appliance.types import NodeState
from appliance.wire import Join, Joined

log = logging.getLogger(__name__)

_PENDING_KEY, _PENDING_REQUEST, _USED = "join.key", "join.csr", "join.used"
_JOIN_MAX_BYTES = 64 * 1024
_ANSWER_S = 30.0


class _Invitation(Struct, frozen=True, forbid_unknown_fields=True):
    """join.toml, as `picketctl node add` made it."""

    token: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    ca: Annotated[str, Meta(min_length=1, max_length=16 * 1024)]


def join(config: Config, join_file: Path, *, timeout_s: float = _ANSWER_S) -> bool:
    """Make this node's keys, have them certified, and erase the token.

    Args:
        config: of the node.
        join_file: join.toml.
        timeout_s: for the controller's answer.

    Returns:
        False: this node had joined by this invitation, or by one that is gone; all is as it was.

    Raises:
        IdentityError: join.toml is missing or none, or the answer is no certificate for us.
        LinkError: the controller does not answer, is not the one in join.toml, or says no.
        CardError: something cannot be written.
    """
    state = Path(config.link.state)
    if membership.joined(state) and not _is_new(join_file, state):
        log.info("%s has joined already", config.node.id)
        erase(join_file, "a used token")
        return False
    invitation = _read(join_file)
    _folder(state)
    key = _pending_key(state)
    question = Join(
        node=config.node.id,
        token=bytes.fromhex(invitation.token),
        csr=_request(state, key, config.node.id),
        watch_key=_watch_key(Path(config.node.identity)),
    )
    ca = invitation.ca.encode()
    tls = ClientTls(ca=ca, server_name=config.link.server_name)
    _show_starting(Path(config.local.run) / "indicator.ipc")
    with NngLink(config.link.join, tls=tls) as link:
        certificate = ask(link, question, Joined, timeout_s).certificate
    credentials.check(certificate, key=key, node=config.node.id, ca=ca)
    credentials.keep_authority(state, ca)
    credentials.swap(state, key, certificate)
    replace(state / _USED, _digest(invitation))
    for pending in (_PENDING_KEY, _PENDING_REQUEST):
        (state / pending).unlink(missing_ok=True)
    erase(join_file, "a used token")
    return True


def _show_starting(lamps: Path) -> None:
    """A node that waits for its controller is not broken; the lamps' patience is a minute."""
    if not listens(lamps):  # no indicator service runs here: `picket join` at a desk
        return
    with NngLink(f"ipc://{lamps}", redial_s=(0.05, 1.0)) as link:
        if not Beacon(link, connected=lambda: link.connected).show(NodeState.STARTING):
            log.warning("the lamps do not say that this node joins")


def _is_new(join_file: Path, state: Path) -> bool:
    """Whether a node that has joined is invited again, by a token that it has not used."""
    if not join_file.exists():
        return False
    used = state / _USED
    return not used.exists() or used.read_bytes() != _digest(_read(join_file))


def _digest(invitation: _Invitation) -> bytes:
    return sha256(bytes.fromhex(invitation.token)).hexdigest().encode()


def _read(path: Path) -> _Invitation:
    try:
        with path.open("rb") as file:
            document = tomllib.loads(file.read(_JOIN_MAX_BYTES).decode())
        return msgspec.convert(document, _Invitation)
    except FileNotFoundError as e:
        raise IdentityError(f"{path}: missing: `picketctl node add` makes it") from e
    except OSError as e:
        raise IdentityError(f"{path}: cannot be read: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as e:
        raise IdentityError(f"{path}: is no invitation: {e}") from e


def _folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise CardError(f"{path}: cannot be made: {e.strerror}") from e


def _pending_key(state: Path) -> EllipticCurvePrivateKey:
    """The key of an attempt that was interrupted, or a new one."""
    path = state / _PENDING_KEY
    if path.exists():
        return credentials.load_key(path)
    (state / _PENDING_REQUEST).unlink(missing_ok=True)  # of a key that is gone
    key = credentials.new_key()
    replace(path, credentials.key_pem(key))
    return key


def _request(state: Path, key: EllipticCurvePrivateKey, node: str) -> bytes:
    """The request of an attempt that was interrupted, or a new one.

    Kept, because its signature is random: the controller tells by its bytes that a token which
    was used is used again by the same node.
    """
    path = state / _PENDING_REQUEST
    if path.exists():
        return path.read_bytes()
    request = credentials.request_for(key, node)
    replace(path, request)
    return request


def _watch_key(path: Path) -> bytes:
    """Public half of the watch service's identity, which is made if it is not there.

    Readable by its group: the watch service runs as a user of its own.
    """
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _folder(path.parent)
        replace(path, pem, mode=0o640)
    return load_identity(path).public_key().public_bytes_raw()
