"""The fleet folder: the keys of `picketctl init`, and what is made with them.

ca.key ca.crt            the fleet's authority, P-256
controller.key, .crt     TLS of `picketctl serve`; the key stays, the certificate is renewed
online.key               Ed25519, signs stamps
alert.key                ML-KEM-768 seed and X25519 private key, 96 bytes: opens alerts
authorities/NAME.key     Ed25519, signs lists: to be taken away and kept offline
authorities/NAME.pub     what nodes are told of it; a file added here is one authority more
crl.pem                  revoked certificates
fleet.toml               name, addresses, how many authorities must sign
updates/                 the bundle that is rolled out, under its SHA-256: see bundles.py

Enters: a folder. Leaves: keys, settings for sockets, node.toml and join.toml for one node. Which
nodes there are, and which serials they had, is the store's.
"""

from __future__ import annotations

import dataclasses
import fcntl
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import tomli_w
from cryptography import x509
from msgspec import Meta, Struct

from appliance import config
from appliance.controller import identity, keyfiles
from appliance.errors import IdentityError
from appliance.link.file import replace
from appliance.link.tls import ServerTls
from appliance.wire import Name


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """fleet.toml.

    Attributes:
        name: of the fleet; nodes take no other fleet's lists.
        controllers, join: addresses that nodes are told.
        server_name: common name of the controllers' certificate.
        signatures: how many authorities must have signed a list.
        node_days: how long a node's certificate lasts.
        store: the database, "" for fleet.db in this folder, or postgresql://USER@HOST/NAME.
        silent_hours: a node that comes back after a longer silence gets no list until an
            operator confirms it.
    """

    name: Name
    controllers: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)] = (
        "tls+tcp://127.0.0.1:7441",
    )
    join: str = "tls+tcp://127.0.0.1:7442"
    server_name: Name = "controller"
    signatures: Annotated[int, Meta(ge=1, le=8)] = 1
    node_days: Annotated[int, Meta(ge=1, le=825)] = 30
    store: Annotated[str, Meta(max_length=500)] = ""
    silent_hours: Annotated[float, Meta(gt=0.0, le=8_784.0)] = 72.0


class Fleet:
    """An opened fleet folder. Every method that writes may be called by several processes.

    Attributes:
        folder: where it lies.
        settings: of fleet.toml.
        authority: the certificate authority.
        online_key: signs stamps.
        alert_key: private, ML-KEM-768's seed and then X25519's 32 bytes.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        read = keyfiles.read
        self.authority = identity.load_authority(read(folder / "ca.crt"), read(folder / "ca.key"))
        self.online_key = keyfiles.ed25519(folder / "online.key")
        self.alert_key = read(folder / "alert.key")
        if len(self.alert_key) != keyfiles.ALERT_KEY_BYTES:
            raise IdentityError(
                f"{folder / 'alert.key'}: {len(self.alert_key)} bytes:"
                f" {keyfiles.ALERT_KEY_BYTES} are a key"
            )

    @classmethod
    def init(
        cls,
        folder: Path,
        settings: Settings,
        *,
        authorities: Sequence[str] = ("authority",),
        now: datetime,
    ) -> Fleet:
        """Make a fleet, whole or not at all; a fleet that is there already is never touched.

        Safe to repeat: the same again finds what it made before.

        Args:
            folder: new or empty.
            settings: for fleet.toml.
            authorities: names of the list authorities whose keys are made.
            now: with a time zone.

        Raises:
            IdentityError: the folder holds another fleet, or something else; or fewer
                authorities than must sign.
        """
        if (folder / "fleet.toml").exists():
            there = cls.load(folder)
            if there.settings != settings:
                raise IdentityError(f"{folder}: holds a fleet with other settings; it was left")
            return there
        try:
            msgspec.convert(authorities, tuple[Name, ...])
        except msgspec.ValidationError as e:
            raise IdentityError(f"the authorities' names: {e}") from e
        if len(set(authorities)) < settings.signatures:
            raise IdentityError(
                f"{settings.signatures} signatures are asked of {len(set(authorities))} authorities"
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise IdentityError(f"{folder}: is not empty and holds no fleet; it was left")
        keyfiles.make(
            folder,
            msgspec.to_builtins(settings),
            name=settings.name,
            server_name=settings.server_name,
            authorities=authorities,
            now=now,
        )
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Fleet:
        """Open a fleet.

        Raises:
            IdentityError: a file is missing or broken; names it.
        """
        path = folder / "fleet.toml"
        try:
            document = tomllib.loads(keyfiles.read(path).decode())
            settings = msgspec.convert(document, Settings)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as e:
            raise IdentityError(f"{path}: {e}") from e
        return cls(folder, settings)

    @property
    def authorities(self) -> Mapping[str, bytes]:
        """Ed25519 public keys of the list authorities, 32 bytes each, by name.

        Raises:
            IdentityError: there is none, or a file is none.
        """
        paths = sorted((self.folder / "authorities").glob("*.pub"))
        if not paths:
            raise IdentityError(f"{self.folder / 'authorities'}: no authority's public key")
        return {path.stem: keyfiles.ed25519_public(path) for path in paths}

    @property
    def alert_public_key(self) -> bytes:
        """What nodes seal alerts to: ML-KEM-768's public key, then X25519's; 1216 bytes."""
        return keyfiles.alert_public_key(self.alert_key)

    @property
    def crl(self) -> bytes:
        """The revocation list as it is now, PEM: another process may have extended it."""
        return keyfiles.read(self.folder / "crl.pem")

    def server_tls(self) -> ServerTls:
        """For the port of the nodes: both ends show certificates."""
        return ServerTls(
            ca=identity.pem(self.authority.certificate),
            certificate=keyfiles.read(self.folder / "controller.crt"),
            key=keyfiles.read(self.folder / "controller.key"),
            crl=self.crl,
        )

    def join_tls(self) -> ServerTls:
        """For the join port: only the controller shows one."""
        return dataclasses.replace(self.server_tls(), crl=None, mutual=False)

    def issue(self, node: str, csr: bytes, now: datetime) -> x509.Certificate:
        """A certificate for a node; its serial number is for the store.

        Raises:
            IdentityError: the request is none, or is not this node's.
        """
        life = timedelta(days=self.settings.node_days)
        return identity.issue_node(self.authority, node, csr, now, life)

    def revoke(self, serials: Iterable[int], now: datetime) -> None:
        """Add certificates to the revocation list; those that are on it already stay."""
        with self._alone():
            number, revoked = identity.revoked_in(self.crl, self.authority.certificate)
            known = {serial for serial, _ in revoked}
            revoked += [(serial, now) for serial in sorted(set(serials) - known)]
            crl = identity.revocations(self.authority, revoked, number + 1, now)
            replace(self.folder / "crl.pem", crl, mode=keyfiles.PUBLIC)

    def renew_controller(self, now: datetime) -> bool:
        """Renew the controller's certificate in the last third of its life, for the same key.

        Returns:
            Whether it was renewed, and `server_tls` has another one.
        """
        with self._alone():
            ends = keyfiles.certificate(self.folder / "controller.crt").not_valid_after_utc
            if ends - now > identity.CONTROLLER_LIFE / 3:
                return False
            name = self.settings.server_name
            keyfiles.certify_controller(self.folder, self.authority, name, now)
            return True

    def node_toml(self, node: str) -> str:
        """node.toml for a node: who it is, whom it believes, where it asks. No secret is in it.

        Raises:
            IdentityError: fleet.toml holds what no node takes; names the key.
        """
        settings, keys = self.settings, self.authorities.values()
        document = {
            "node": {
                "id": node,
                "fleet": settings.name,
                "authorities": [key.hex() for key in keys],
                "signatures": settings.signatures,
                "online_key": self.online_key.public_key().public_bytes_raw().hex(),
                "alert_key": self.alert_public_key.hex(),
            },
            "link": {
                "controllers": list(settings.controllers),
                "join": settings.join,
                "server_name": settings.server_name,
            },
        }
        try:
            msgspec.convert(document, config.Config)
        except msgspec.ValidationError as e:
            raise IdentityError(f"{self.folder / 'fleet.toml'}: makes no node.toml: {e}") from e
        return tomli_w.dumps(document)

    def join_toml(self, token: bytes) -> str:
        """join.toml for a node: its one-time token, and the authority to hold the answer against.

        Apart from node.toml, so that `picket join` can erase it.
        """
        ca = identity.pem(self.authority.certificate).decode("ascii")
        return tomli_w.dumps({"token": token.hex(), "ca": ca}, multiline_strings=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time reads, changes and writes."""
        with (self.folder / "fleet.toml").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
