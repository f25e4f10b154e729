"""A node's network as Debian's own programs read it: networkd, timesyncd, nftables, systemd, SSH.

Pure: tables of picket-provision.toml in, texts out. Nothing here writes or applies them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from appliance.errors import ProvisionError
from appliance.system.card import FILE, Network, Provision

NETWORK, WIFI, CLOCK, FIREWALL, REACH, SSH = (
    "picket.network",
    "wpa_supplicant.conf",
    "timesyncd.conf",
    "nftables.conf",
    "controllers.conf",
    "authorized_keys",
)
OPTIONAL = (WIFI, SSH)
"""Files that a card may have no need of: then an older one must go."""
_PORTS = range(1, 65_536)


def files(provision: Provision) -> Mapping[str, str]:
    """Every file, by name.

    Raises:
        ProvisionError: an address of a controller has no port.
    """
    made = {
        NETWORK: _network(provision.network),
        CLOCK: _clock(provision.time.servers),
        FIREWALL: _firewall(provision),
        REACH: _reach(provision),
    }
    if provision.network.wifi_ssid:
        made[WIFI] = _wifi(provision.network)
    if provision.ssh is not None:
        made[SSH] = f"# from {' '.join(provision.ssh.sources)}\n{provision.ssh.key}\n"
    return made


def endpoint(url: str) -> tuple[str, int]:
    """Host and port of tls+tcp://HOST:PORT.

    Raises:
        ProvisionError: it has none.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port not in _PORTS:
        raise ProvisionError(f"{FILE}: link: '{url}' is not tls+tcp://HOST:PORT")
    return host, int(port or 0)


def _network(network: Network) -> str:
    lines = ["[Match]", "Name=wl*" if network.wifi_ssid else "Name=e*", "", "[Network]"]
    if network.address:
        lines += [f"Address={network.address}", "IPv6AcceptRA=no"]
        lines += [f"Gateway={network.gateway}"] if network.gateway else []
    else:
        lines.append("DHCP=yes")
    lines += [f"DNS={server}" for server in network.dns]
    # A node has a name of its own, and tells it to nobody.
    lines += ["LLMNR=no", "MulticastDNS=no", "", "[DHCPv4]", "SendHostname=no"]
    lines += ["UseHostname=no", f"UseDNS={'no' if network.dns else 'yes'}"]
    return "\n".join(lines) + "\n"


def _wifi(network: Network) -> str:
    """Hexadecimal and quoted as wpa_supplicant.conf(5) wants; neither can end its quotes."""
    ssid = network.wifi_ssid.encode().hex()
    if '"' in network.wifi_psk:  # a quoted pass phrase is read up to the last quote of its line
        raise ProvisionError(f"{FILE}: network.wifi_psk: a quotation mark cannot be in it")
    return (
        "ctrl_interface=/run/wpa_supplicant\nupdate_config=0\n"
        f'network={{\n ssid={ssid}\n psk="{network.wifi_psk}"\n ieee80211w=1\n}}\n'
    )


def _clock(servers: Iterable[str]) -> str:
    names = " ".join(servers)
    return f"[Time]\nNTP={names}\nFallbackNTP=\n" if names else "[Time]\n"


def _firewall(provision: Provision) -> str:
    """Out to controllers, name and time servers; in: answers, and SSH where it is asked for.

    A controller or server with a name is let through by its port: names change, and are not known
    when the rules are loaded.
    """
    rules = [_to(host, f"tcp dport {port}") for host, port in _controllers(provision)]
    servers = provision.time.servers
    rules += [_to(host, "udp dport 123") for host in servers] or ["udp dport 123 accept"]
    for proto in ("udp", "tcp"):
        dns = provision.network.dns
        rules += [_to(host, f"{proto} dport 53") for host in dns] or [f"{proto} dport 53 accept"]
    out = "\n    ".join(dict.fromkeys(rules))
    sources = [] if provision.ssh is None else provision.ssh.sources
    let_in = "".join(f"\n    {_of(source)} tcp dport 22 accept" for source in sources)
    return _RULES.replace("OUT", out).replace("\n    IN", let_in)


def _controllers(provision: Provision) -> list[tuple[str, int]]:
    urls = [*provision.link.controllers, provision.link.join]
    return [endpoint(url) for url in urls]


def _reach(provision: Provision) -> str:
    """What the units of the link may speak to, as a drop-in for them: systemd.resource-control(5).

    Exactly the controllers. The filter knows no names: a controller that has one may be anywhere,
    and what is left is the firewall, which lets out to its port.
    """
    hosts = [host for host, _ in _controllers(provision)]
    try:
        allowed = [str(ipaddress.ip_address(host)) for host in hosts]
    except ValueError:
        allowed = ["any"]
    lines = ["[Service]", "IPAddressAllow=", "IPAddressAllow=localhost"]
    return "\n".join([*lines, *(f"IPAddressAllow={a}" for a in dict.fromkeys(allowed)), ""])


_RULES = """flush ruleset
table inet picket {
  chain input {
    type filter hook input priority filter; policy drop;
    iif lo accept
    ct state established,related accept
    udp sport 67 udp dport 68 accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
    IN
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
  }
  chain output {
    type filter hook output priority filter; policy drop;
    oif lo accept
    ct state established,related accept
    udp sport 68 udp dport 67 accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
    OUT
    reject with icmpx admin-prohibited
  }
}
"""


def _to(host: str, what: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{what} accept"
    return f"{'ip' if address.version == 4 else 'ip6'} daddr {address} {what} accept"  # noqa: PLR2004


def _of(source: str) -> str:
    """A network that something comes from."""
    network = ipaddress.ip_network(source)
    return f"{'ip' if network.version == 4 else 'ip6'} saddr {network}"  # noqa: PLR2004
