"""The systemd units: verified, little exposed, and without the traps that cost somebody a day.

What the kernel really refuses is shown by `make sandbox-test`, which boots them.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
SERVICES = ("watch", "link", "indicator", "join")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing"
)


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SYSTEMD / "check.sh"), str(folder)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A copy to be broken."""
    for unit in [*SYSTEMD.glob("picket*.service"), *SYSTEMD.glob("picket*.target")]:
        shutil.copy(unit, tmp_path)
    return tmp_path


def lines(name: str) -> Iterator[tuple[str, str]]:
    """Every assignment of a service, in order; keys may repeat."""
    for line in (SYSTEMD / f"picket-{name}.service").read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, setting = line.partition("=")
            yield key, setting


def settings(name: str, key: str) -> str:
    return " ".join(setting for k, setting in lines(name) if k == key)


@needs_systemd
def test_every_unit_is_verified_and_within_its_bound() -> None:
    checked = check(SYSTEMD)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("exposure") == len(SERVICES)


@needs_systemd
def test_an_unknown_key_fails_although_systemd_itself_is_content(units: Path) -> None:
    unit = units / "picket-watch.service"
    content = unit.read_text(encoding="utf-8")
    unit.write_text(content.replace("UMask=0077", "Umaks=0077"), encoding="utf-8")
    checked = check(units)
    assert checked.returncode == 1
    assert "Umaks" in checked.stderr


@needs_systemd
def test_a_unit_that_may_do_more_is_above_its_bound(units: Path) -> None:
    unit = units / "picket-indicator.service"
    content = unit.read_text(encoding="utf-8")
    for line in ("PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX", "IPAddressDeny=any"):
        content = content.replace(f"{line}\n", "")
    unit.write_text(content, encoding="utf-8")
    checked = check(units)
    assert checked.returncode == 1
    assert "picket-indicator: exposure" in checked.stderr


@pytest.mark.parametrize("name", ["watch", "indicator", "join"])
def test_inference_and_gpio_keep_the_whole_of_proc(name: str) -> None:
    assert settings(name, "ProcSubset") == ""


def test_the_watch_service_has_no_network_and_nowhere_to_write() -> None:
    assert settings("watch", "PrivateNetwork") == "yes"
    assert settings("watch", "RestrictAddressFamilies") == "AF_UNIX"
    assert settings("watch", "ReadWritePaths") == ""
    for key in ("StateDirectory", "RuntimeDirectory", "LogsDirectory", "CacheDirectory"):
        assert settings("watch", key) == ""
    assert settings("watch", "ReadOnlyPaths") == "/run"
    assert settings("watch", "MemorySwapMax") == "0"
    assert settings("watch", "LimitCORE") == "0"
    assert "memfd_secret" in settings("watch", "SystemCallFilter").split()


def test_only_the_watch_service_gets_its_key() -> None:
    assert settings("watch", "LoadCredential").startswith("watch.key:")
    assert all(settings(name, "LoadCredential") == "" for name in ("link", "indicator", "join"))


def test_only_the_link_service_reaches_the_network_and_it_sees_no_device() -> None:
    assert [n for n in SERVICES if "AF_INET" in settings(n, "RestrictAddressFamilies")] == [
        "link",
        "join",
    ]
    for name in ("link", "join"):
        assert settings(name, "PrivateDevices") == "yes"
        assert settings(name, "DeviceAllow") == ""
    assert settings("link", "StateDirectory") == "picket-link"


def test_the_indicator_opens_gpio_and_nothing_else() -> None:
    assert settings("indicator", "DevicePolicy") == "closed"
    assert settings("indicator", "DeviceAllow") == "char-gpiochip rw /dev/gpiomem rw"


@pytest.mark.parametrize("name", ["watch", "link", "indicator"])
def test_a_service_is_watched_and_started_again_but_never_in_a_hurry(name: str) -> None:
    assert settings(name, "Type") == "notify"
    assert settings(name, "WatchdogSec")
    assert settings(name, "Restart") == "always"
    assert settings(name, "RestartPreventExitStatus") == "2"  # a wrong configuration stays wrong
    assert int(settings(name, "RestartSec").removesuffix("s")) >= 2


def test_every_service_has_a_user_of_its_own_but_the_join() -> None:
    users = [settings(name, "User") for name in ("watch", "link", "indicator")]
    assert users == ["picket-watch", "picket-link", "picket-indicator"]
    sysusers = (SYSTEMD / "sysusers.conf").read_text(encoding="utf-8")
    assert all(f"u {user} -" in sysusers for user in users)
    assert settings("join", "User") == "picket-link"


@needs_systemd
def test_the_images_own_units_are_verified(tmp_path: Path) -> None:
    """As check.sh does the node's: whatever verify says is too much."""
    overlay = SYSTEMD.parent / "image-build/overlay/etc/systemd/system"
    shutil.copytree(overlay, tmp_path, dirs_exist_ok=True)
    for unit in [*SYSTEMD.glob("picket*.service"), *SYSTEMD.glob("picket*.target")]:
        shutil.copy(unit, tmp_path)
    for path in [*tmp_path.glob("*.service"), *tmp_path.glob("*/*.conf")]:
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"(?m)^(Exec\w+=[-+]*)/.*", r"\1/bin/true", text), encoding="utf-8")
    verify = [str(shutil.which("systemd-analyze")), "verify", "--man=no"]
    said = subprocess.run(
        [*verify, *map(str, tmp_path.glob("picket-*.service"))],
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (said.stdout + said.stderr, said.returncode) == ("", 0)


def test_ssh_is_started_only_where_a_card_asked_for_it_and_behind_the_firewall() -> None:
    overlay = SYSTEMD.parent / "image-build/overlay/etc/systemd/system"
    unit = (overlay / "picket-ssh.service").read_text(encoding="utf-8").splitlines()
    assert "ConditionPathExists=/data/system/authorized_keys" in unit
    assert "Requires=nftables.service" in unit
    (start,) = [line.split() for line in unit if line.startswith("ExecStart=")]
    assert {"-s", "-w", "-j", "-k"} <= set(start), "no password, no root, no forwarding"


def test_a_drop_in_is_a_unit_fragment() -> None:
    for path in (SYSTEMD / "drop-in").glob("*.conf"):
        parser = configparser.ConfigParser(strict=False)
        parser.read(path, encoding="utf-8")
        assert parser.sections() == ["Service"]
