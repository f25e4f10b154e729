"""The fleet folder: made whole or not at all, never overwritten, and what nodes are given."""

from __future__ import annotations

import tomllib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance import config
from appliance.controller import identity
from appliance.controller.fleet import Fleet, Settings
from appliance.errors import IdentityError
from appliance.link.credentials import request_for

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SETTINGS = Settings(name="market", controllers=("tls+tcp://c1:7441", "tls+tcp://c2:7441"))
SECRETS = {"ca.key", "controller.key", "online.key", "alert.key", "authorities/authority.key"}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet.init(tmp_path / "fleet", SETTINGS, now=NOW)


def test_a_fleet_is_these_files_and_nobody_else_reads_its_keys(fleet: Fleet) -> None:
    public = {"ca.crt", "controller.crt", "crl.pem", "fleet.toml", "authorities/authority.pub"}
    assert set(contents(fleet.folder)) == SECRETS | public
    assert fleet.folder.stat().st_mode & 0o777 == 0o700
    for name in SECRETS:
        assert (fleet.folder / name).stat().st_mode & 0o777 == 0o600, name


def test_made_again_it_is_the_same(fleet: Fleet) -> None:
    before = contents(fleet.folder)
    again = Fleet.init(fleet.folder, SETTINGS, now=NOW + timedelta(days=1))
    assert contents(fleet.folder) == before
    assert again.settings == SETTINGS


def test_a_fleet_that_is_there_is_never_touched(fleet: Fleet) -> None:
    before = contents(fleet.folder)
    with pytest.raises(IdentityError, match="holds a fleet with other settings; it was left"):
        Fleet.init(fleet.folder, Settings(name="other"), now=NOW)
    assert contents(fleet.folder) == before


def test_a_folder_that_holds_something_else_is_left(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(IdentityError, match="is not empty and holds no fleet; it was left"):
        Fleet.init(tmp_path, SETTINGS, now=NOW)
    assert contents(tmp_path) == {"photo.jpg": b"mine"}


def test_what_a_killed_init_left_is_made_anew(tmp_path: Path) -> None:
    partial = tmp_path / ".fleet.partial"
    partial.mkdir()
    (partial / "ca.key").write_bytes(b"half a k")
    fleet = Fleet.init(tmp_path / "fleet", SETTINGS, now=NOW)
    assert fleet.settings == SETTINGS
    assert not partial.exists()


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    assert Fleet.init(tmp_path / "fleet", SETTINGS, now=NOW).authorities


def test_a_fleet_with_too_few_authorities_is_refused(tmp_path: Path) -> None:
    two = msgspec.structs.replace(SETTINGS, signatures=2)
    with pytest.raises(IdentityError, match="2 signatures are asked of 1 authorities"):
        Fleet.init(tmp_path / "fleet", two, now=NOW)
    with pytest.raises(IdentityError, match="names"):
        Fleet.init(tmp_path / "fleet", SETTINGS, authorities=("../evil",), now=NOW)
    fleet = Fleet.init(tmp_path / "fleet", two, authorities=("north", "south"), now=NOW)
    assert set(fleet.authorities) == {"north", "south"}


def test_the_authorities_keys_may_be_taken_away(fleet: Fleet) -> None:
    before = fleet.authorities
    (fleet.folder / "authorities" / "authority.key").unlink()
    assert Fleet.load(fleet.folder).authorities == before


@pytest.mark.parametrize("name", ["ca.key", "ca.crt", "online.key", "alert.key", "fleet.toml"])
def test_a_broken_file_is_named(fleet: Fleet, name: str) -> None:
    (fleet.folder / name).write_bytes(b"\xff nonsense")
    with pytest.raises(IdentityError) as refused:
        Fleet.load(fleet.folder)
    assert "\n" not in str(refused.value)
    (fleet.folder / name).unlink()
    with pytest.raises(IdentityError, match=f"{name}: missing"):
        Fleet.load(fleet.folder)


def test_what_nodes_seal_to_is_what_the_alert_key_opens(fleet: Fleet) -> None:
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
    private = hpke.MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(fleet.alert_key[:64]),
        X25519PrivateKey.from_private_bytes(fleet.alert_key[64:]),
    )
    sealed = suite.encrypt(b"seen", private.public_key(), info=b"test")
    assert suite.decrypt(sealed, private, info=b"test") == b"seen"
    assert len(fleet.alert_public_key) == 1216


def test_node_toml_is_a_configuration_and_holds_no_secret(fleet: Fleet, tmp_path: Path) -> None:
    token = bytes(range(32))
    path = tmp_path / "node.toml"
    path.write_text(fleet.node_toml("cam-1"))
    loaded = config.load(path)
    assert (loaded.node.id, loaded.node.fleet) == ("cam-1", "market")
    assert loaded.node.authorities == tuple(key.hex() for key in fleet.authorities.values())
    assert loaded.node.online_key == fleet.online_key.public_key().public_bytes_raw().hex()
    assert loaded.node.alert_key == fleet.alert_public_key.hex()
    assert loaded.link.controllers == SETTINGS.controllers
    assert token.hex() not in path.read_text()
    invitation = tomllib.loads(fleet.join_toml(token))
    assert invitation["token"] == token.hex()
    assert x509.load_pem_x509_certificate(invitation["ca"].encode()) == fleet.authority.certificate


def test_settings_that_no_node_takes_are_named(tmp_path: Path) -> None:
    wrong = Settings(name="market", controllers=("tcp://in-the-clear:7441",))
    fleet = Fleet.init(tmp_path / "fleet", wrong, now=NOW)
    with pytest.raises(IdentityError, match="controllers"):
        fleet.node_toml("cam-1")
    with pytest.raises(IdentityError, match=r"makes no node\.toml"):
        Fleet.init(tmp_path / "good", SETTINGS, now=NOW).node_toml("a name")


def test_revocations_add_up_whoever_makes_them(fleet: Fleet) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: Fleet.load(fleet.folder).revoke([n], NOW), range(1, 9)))
    fleet.revoke([1, 2], NOW + timedelta(days=1))
    number, revoked = identity.revoked_in(fleet.crl, fleet.authority.certificate)
    assert number == 10
    assert dict(revoked) == dict.fromkeys(range(1, 9), NOW)


def test_a_nodes_certificate_lasts_as_long_as_the_fleet_says(fleet: Fleet) -> None:
    key = identity.new_key()
    issued = fleet.issue("cam-1", request_for(key, "cam-1"), NOW)
    assert issued.not_valid_after_utc == NOW + timedelta(days=30)
    with pytest.raises(IdentityError, match="cam-2"):
        fleet.issue("cam-2", request_for(key, "cam-1"), NOW)


def test_the_controllers_certificate_is_renewed_in_its_last_third(fleet: Fleet) -> None:
    before = fleet.server_tls()
    assert not fleet.renew_controller(NOW + timedelta(days=240))
    assert fleet.server_tls() == before
    assert fleet.renew_controller(NOW + timedelta(days=245))
    after = fleet.server_tls()
    assert after.key == before.key
    renewed = x509.load_pem_x509_certificate(after.certificate)
    assert renewed.not_valid_after_utc == NOW + timedelta(days=245 + 365)
    assert not fleet.renew_controller(NOW + timedelta(days=246))


def test_the_join_port_asks_nobody_for_a_certificate_and_the_other_one_does(fleet: Fleet) -> None:
    assert fleet.server_tls().mutual
    assert fleet.server_tls().crl == fleet.crl
    assert not fleet.join_tls().mutual
