"""picket-provision.toml: all that one card is told before its first start, in one file.

Enters: the bytes of the file, which anybody who holds the card may have edited. Leaves: a
Provision, or the first key that is wrong. Writing it is `picketctl provision`'s business, acting
on it `picket first-boot`'s.

The tables of node.toml stand in it as they are ([node], [link], [camera], [lamps] ...), so that
there is one description of each key; [join], [network], [time] and [ssh] are the card's own.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from typing import Annotated, Any

import msgspec
import tomli_w
from msgspec import Meta, Struct

from appliance.config import Config
from appliance.errors import ProvisionError

FILE = "picket-provision.toml"
"""In the top folder of the card's first partition."""
STATUS = "picket-status.txt"
"""Beside it: what became of it, for a person with a card reader."""
LAMPS = "picket-lamps.toml"
"""Beside it, if its LEDs are not where they usually are: how they are wired, for the case that the
data partition, which has it too, cannot be opened. No secret."""
MAX_BYTES = 64 * 1024
TOKEN_CHARS = 64
OWN = ("format", "join", "network", "time", "ssh")
"""Keys that are the card's, and not node.toml's."""

_Host = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?\Z")]
_Ssid = Annotated[str, Meta(max_length=32, pattern=r"\A[\x20-\x7e]*\Z")]
_Psk = Annotated[str, Meta(max_length=63, pattern=r"\A[\x20-\x7e]*\Z")]


class Invitation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[join]: how the node becomes one of its fleet.

    Attributes:
        token: 64 hex digits, good for one node and for a time; zeros once it was taken.
        ca: the fleet's certificate authority, PEM.
    """

    token: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    ca: Annotated[str, Meta(min_length=1, max_length=16 * 1024, pattern="-----BEGIN CERTIFICATE-")]


class Network(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[network]: how the node reaches its controllers.

    Attributes:
        address: with its prefix, such as 192.0.2.17/24; "" asks DHCP for everything.
        gateway: its router; needs an address.
        dns: name servers.
        wifi_ssid, wifi_psk: a WPA2 network; without them the cable is used.
    """

    address: Annotated[str, Meta(max_length=64)] = ""
    gateway: Annotated[str, Meta(max_length=64)] = ""
    dns: Annotated[tuple[str, ...], Meta(max_length=4)] = ()
    wifi_ssid: _Ssid = ""
    wifi_psk: _Psk = ""

    def __post_init__(self) -> None:
        """Refuse what is no address, and a Wi-Fi network without its key."""
        if self.address:
            if "/" not in self.address:
                raise ValueError(f"address '{self.address}' lacks its prefix, such as /24")
            here = ipaddress.ip_interface(self.address)
            if self.gateway and ipaddress.ip_address(self.gateway) not in here.network:
                raise ValueError(f"gateway {self.gateway} is not in {here.network}")
        elif self.gateway:
            raise ValueError("a gateway needs an address; without one DHCP gives both")
        for server in self.dns:
            ipaddress.ip_address(server)
        if bool(self.wifi_ssid) is not bool(self.wifi_psk):
            raise ValueError("wifi_ssid and wifi_psk are given both or neither")
        if self.wifi_psk and len(self.wifi_psk) < 8:  # noqa: PLR2004 - IEEE 802.11i, H.4.1
            raise ValueError(f"wifi_psk has {len(self.wifi_psk)} characters: 8 to 63 are a key")


class Time(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[time]: servers that tell the time (NTP); without any, the distribution's default."""

    servers: Annotated[tuple[_Host, ...], Meta(max_length=4)] = ()


class Ssh(
    Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"sources": "from"}
):
    """[ssh]: lets somebody in, as the user `service`. Without this table nobody is.

    Attributes:
        key: a public key, as ssh-keygen writes it; ssh-ed25519, because one kind is enough.
        sources: `from` in the file: addresses or networks from which port 22 is open.
    """

    key: Annotated[str, Meta(max_length=200)]
    sources: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]


class Provision(Config, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """picket-provision.toml, whole: the tables of node.toml and the card's own.

    Attributes:
        format: of this file.
    """

    format: Annotated[int, Meta(ge=1, le=1)]
    join: Invitation
    network: Network = Network()
    time: Time = Time()
    ssh: Ssh | None = None

    @property
    def taken(self) -> bool:
        """Whether the token was used up already."""
        return not self.join.token.strip("0")


def read(content: bytes) -> tuple[Provision, dict[str, Any]]:
    """Read picket-provision.toml.

    Args:
        content: of the file.

    Returns:
        What it says, and the same as plain tables, in which only that stands which the file says:
        a default that a later version changes must not be frozen on every card.

    Raises:
        ProvisionError: too long, not TOML, an unknown key, or a broken bound; names the key.
    """
    if len(content) > MAX_BYTES:
        raise ProvisionError(f"{FILE}: {len(content)} bytes: at most {MAX_BYTES} are read")
    try:
        document = tomllib.loads(content.decode("utf-8-sig"))  # as Windows' editor may save it
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ProvisionError(f"{FILE}: not TOML: {e}") from e
    return convert(document), document


def convert(document: dict[str, Any]) -> Provision:
    """What plain tables say; see `read`."""
    try:
        provision = msgspec.convert(document, Provision)
    except msgspec.ValidationError as e:
        what, found, where = str(e).partition(" - at `$")
        key = where.rstrip("`").lstrip(".")
        raise ProvisionError(f"{FILE}: {f'{key}: ' if found else ''}{what}") from e
    node = provision.node
    if node.signatures > len(set(node.authorities)):
        raise ProvisionError(
            f"{FILE}: node.signatures: {node.signatures} asked of"
            f" {len(set(node.authorities))} authorities"
        )
    if provision.ssh is not None:
        _check(provision.ssh)
    return provision


_ED25519 = re.compile(r"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{43}( [\x20-\x7e]*)?")
"""RFC 8709: 51 bytes, of which the first 19 are always the same."""


def _check(ssh: Ssh) -> None:
    """Refuse what is no key, or lets everybody try; by the key that is wrong."""
    if not _ED25519.fullmatch(ssh.key):
        raise ProvisionError(f"{FILE}: ssh.key: is no public key 'ssh-ed25519 AAAAC3… name'")
    for source in ssh.sources:
        try:
            network = ipaddress.ip_network(source)
        except ValueError as e:
            raise ProvisionError(f"{FILE}: ssh.from: {e}") from e
        if network.prefixlen == 0:
            raise ProvisionError(f"{FILE}: ssh.from: {source} is everybody")


def write(document: dict[str, Any]) -> bytes:
    """The file that says what plain tables say."""
    return tomli_w.dumps(document, multiline_strings=True).encode()


def node_toml(document: dict[str, Any]) -> dict[str, Any]:
    """The tables that are node.toml's."""
    return {key: table for key, table in document.items() if key not in OWN}
