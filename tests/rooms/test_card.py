"""picket-provision.toml: what a card may say, and the line that says why it may not."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ProvisionError
from appliance.system import card, netfiles
from tests.path.cards import PEM, document

NFT = shutil.which("nft")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "Ab" * 21 + "c"


def test_what_is_written_is_read() -> None:
    asked = document(lamps={"driver": "gpio", "status": {"bcm": 5, "active_low": True}})
    provision, read = card.read(card.write(asked))
    assert read == asked
    assert (provision.node.id, provision.lamps.status.bcm) == ("cam-017", 5)
    assert not provision.taken
    assert set(card.node_toml(read)) == {"node", "link", "lamps"}


def test_an_editor_of_windows_may_have_saved_it() -> None:
    content = b"\xef\xbb\xbf" + card.write(document()).replace(b"\n", b"\r\n")
    assert card.read(content)[0].node.id == "cam-017"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format: "),
        ({"nodes": {}}, "unknown field `nodes`"),
        ({"node": {"id": "cam 17"}}, "node.id: "),
        ({"join": {"token": "12", "ca": PEM}}, "join.token: "),
        ({"join": {"token": "12" * 32, "ca": "no"}}, "join.ca: "),
        ({"lamps": {"status": {"bcm": 99, "colour": "green"}}}, "lamps.status.bcm: "),
        ({"lamps": {"status": {"bcm": 17}}}, "camera and status are both on BCM 17"),
        ({"network": {"address": "10.0.0.7"}}, "lacks its prefix"),
        ({"network": {"address": "10.0.0.300/24"}}, "10.0.0.300"),
        ({"network": {"address": "10.0.0.7/24", "gateway": "10.1.0.1"}}, "gateway 10.1.0.1"),
        ({"network": {"gateway": "10.1.0.1"}}, "a gateway needs an address"),
        ({"network": {"dns": ["ns"]}}, "'ns'"),
        ({"network": {"wifi_ssid": "pole"}}, "both or neither"),
        ({"network": {"wifi_ssid": "pole", "wifi_psk": "short"}}, "8 to 63"),
        ({"time": {"servers": ["-x"]}}, "time.servers[0]: "),
        ({"ssh": {"key": KEY}}, "ssh: Object missing required field `from`"),
        ({"ssh": {"key": KEY, "from": []}}, "ssh.from: "),
        ({"ssh": {"key": KEY, "from": ["10.0.0.1/8"]}}, "ssh.from: 10.0.0.1/8 has host bits set"),
        ({"ssh": {"key": KEY, "from": ["::/0"]}}, "ssh.from: ::/0 is everybody"),
        ({"ssh": {"key": KEY[:-4], "from": ["10.0.0.1"]}}, "ssh.key: is no public key"),
        ({"ssh": {"key": f"no-pty {KEY}", "from": ["10.0.0.1"]}}, "ssh.key: is no public key"),
        ({"ssh": {"key": f"{KEY}\n{KEY}", "from": ["10.0.0.1"]}}, "ssh.key: is no public key"),
        ({"ssh": {"key": "ssh-rsa AAAA", "from": ["10.0.0.1"]}}, "ssh.key: is no public key"),
        ({"ssh": {"key": KEY, "from": ["10.0.0.1"], "user": "root"}}, "unknown field `user`"),
    ],
)
def test_a_bad_key_is_named(change: dict[str, Any], said: str) -> None:
    asked = document()
    for table, keys in change.items():
        if isinstance(keys, dict):
            asked[table] = asked.get(table, {}) | keys
        else:
            asked[table] = keys
    with pytest.raises(ProvisionError) as refused:
        card.read(card.write(asked))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_more_signatures_than_authorities_are_refused() -> None:
    asked = document()
    asked["node"]["signatures"] = 2
    with pytest.raises(ProvisionError, match=r"node\.signatures: 2 asked of 1"):
        card.convert(asked)


def test_a_token_of_zeros_was_used() -> None:
    assert card.convert(document(join={"token": "0" * 64, "ca": PEM})).taken


def test_a_file_that_is_too_long_is_not_parsed() -> None:
    with pytest.raises(ProvisionError, match="at most"):
        card.read(b"#" * (card.MAX_BYTES + 1))


@given(st.binary(max_size=400))
def test_hostile_bytes_are_refused_in_one_way(content: bytes) -> None:
    with pytest.raises(ProvisionError):
        card.read(content)


@given(st.binary(max_size=20), st.integers(0, 600))
def test_a_good_file_that_was_damaged_is_read_or_refused(noise: bytes, place: int) -> None:
    content = card.write(document())
    place %= len(content)
    with contextlib.suppress(ProvisionError):
        card.read(content[:place] + noise + content[place + len(noise) :])


def test_dhcp_over_the_cable_is_the_default() -> None:
    made = netfiles.files(card.convert(document()))
    assert set(made) == {
        "picket.network", "timesyncd.conf", "nftables.conf", "controllers.conf",
    }  # fmt: skip
    assert "Name=e*" in made["picket.network"]
    assert "DHCP=yes" in made["picket.network"]


def test_a_fixed_address_and_a_wireless_network_are_written_out() -> None:
    network = {
        "address": "10.0.0.17/24", "gateway": "10.0.0.1", "dns": ["10.0.0.2"],
        "wifi_ssid": 'a "b"', "wifi_psk": "correct horse",
    }  # fmt: skip
    made = netfiles.files(card.convert(document(network=network)))
    assert "Address=10.0.0.17/24\n" in made["picket.network"]
    assert "Gateway=10.0.0.1\n" in made["picket.network"]
    assert "Name=wl*" in made["picket.network"]
    assert "ssid=6120226222\n" in made["wpa_supplicant.conf"]


def test_a_pass_phrase_cannot_leave_its_quotes() -> None:
    network = {"wifi_ssid": "pole", "wifi_psk": 'abcdefgh" \n'.strip()}
    with pytest.raises(ProvisionError, match="quotation mark"):
        netfiles.files(card.convert(document(network=network)))


def test_the_firewall_lets_out_to_controllers_and_clocks_alone() -> None:
    made = netfiles.files(card.convert(document(time={"servers": ["10.0.0.3", "ntp.example"]})))
    rules = made["nftables.conf"]
    assert "ip daddr 10.0.0.5 tcp dport 7441 accept" in rules
    assert "ip daddr 10.0.0.5 tcp dport 7442 accept" in rules
    assert "ip daddr 10.0.0.3 udp dport 123 accept" in rules
    assert rules.count("policy drop") == 3
    assert "tcp dport 7441 accept\n" in rules.replace("ip daddr 10.0.0.5 ", "")


@pytest.mark.parametrize("url", ["tls+tcp://host", "tls+tcp://:1", "tls+tcp://h:0", "tls+tcp://["])
def test_a_controller_without_a_port_is_refused(url: str) -> None:
    link = {"controllers": [url]}
    with pytest.raises(ProvisionError, match="is not tls"):
        netfiles.files(card.convert(document(link=link)))


def test_nobody_is_let_in_unless_the_card_says_who() -> None:
    made = netfiles.files(card.convert(document()))
    assert "dport 22" not in made["nftables.conf"]
    assert netfiles.SSH not in made
    ssh = {"key": f"{KEY} anna@desk", "from": ["10.0.0.0/28", "fd00::7"]}
    asked = document(ssh=ssh)
    assert "ssh" not in card.node_toml(asked)
    made = netfiles.files(card.convert(asked))
    chain = made["nftables.conf"].partition("chain forward")[0]
    assert "ip saddr 10.0.0.0/28 tcp dport 22 accept" in chain
    assert "ip6 saddr fd00::7/128 tcp dport 22 accept" in chain
    assert chain.count("dport 22") == 2
    assert made[netfiles.SSH] == f"# from 10.0.0.0/28 fd00::7\n{KEY} anna@desk\n"


def reach(**link: Any) -> list[str]:
    made = netfiles.files(card.convert(document(link=link)))["controllers.conf"].splitlines()
    assert made[:2] == ["[Service]", "IPAddressAllow="], "what the unit allows is forgotten first"
    return [line.removeprefix("IPAddressAllow=") for line in made[2:]]


def test_the_link_may_speak_to_the_controllers_and_to_nothing_else() -> None:
    public = reach(controllers=["tls+tcp://203.0.113.9:7441", "tls+tcp://[2001:db8::9]:7441"],
                   join="tls+tcp://203.0.113.9:7442")  # fmt: skip
    assert public == ["localhost", "203.0.113.9", "2001:db8::9"]


def test_a_controller_with_a_name_may_be_anywhere_and_the_firewall_is_left() -> None:
    link = {"controllers": ["tls+tcp://watch.example:7441", "tls+tcp://10.0.0.5:7441"]}
    assert reach(**link) == ["localhost", "any"]
    rules = netfiles.files(card.convert(document(link=link)))["nftables.conf"]
    assert "    tcp dport 7441 accept\n" in rules


@pytest.mark.skipif(NFT is None, reason="nft is missing")
def test_the_rules_are_rules(tmp_path: Path) -> None:
    rules = tmp_path / "nftables.conf"
    ssh = {"key": KEY, "from": ["10.0.0.0/28", "fd00::/64"]}
    asked = document(network={"dns": ["fd00::1", "10.0.0.2"]}, ssh=ssh)
    made = netfiles.files(card.convert(asked))
    rules.write_text(made["nftables.conf"], encoding="utf-8")
    done = subprocess.run(
        [NFT or "", "--check", "--file", str(rules)], capture_output=True, text=True, check=False
    )
    if "Operation not permitted" in done.stderr or "cache initialization" in done.stderr:
        pytest.skip("nft may not ask this kernel")
    assert done.returncode == 0, done.stderr
