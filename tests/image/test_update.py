"""`picket update`, with programs of our own in RAUC's and systemd's places."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.cli import main
from appliance.errors import UpdateError
from appliance.services.update import update

RAUC = """#!/bin/sh
echo "rauc $*" >>"$0.log"
case $1 in
  info) cat "$3" ;;
  install) grep -q broken "$2" && { echo "LastError: no space" >&2; exit 1; } ;;
esac
exit 0
"""


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (
        ("rauc", RAUC),
        ("systemctl", '#!/bin/sh\necho "systemctl $*" >>"$0.log"\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "release").write_text("0.2.1\n")
    return tmp_path


def bundle(box: Path, version: str, compatible: str = "picket-arm64", more: str = "") -> Path:
    path = box / "update.raucb"
    path.write_text(f'{{"compatible": "{compatible}", "version": "{version}"}}{more}\n')
    return path


def ran(box: Path, name: str = "rauc") -> list[str]:
    path = box / f"{name}.log"
    return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("version", ["0.2.1", "0.2.10", "0.10", "1"])
def test_a_newer_one_or_the_same_again_is_installed_and_tried(box: Path, version: str) -> None:
    said: list[str] = []
    update(bundle(box, version), say=said.append, release=box / "release")
    assert said == [f"{version} is installed; it is kept if its services come up"]
    assert ran(box) == ["info", "install"]
    assert "reboot --reboot-argument=0 tryboot" in (box / "systemctl.log").read_text()


@pytest.mark.parametrize(
    ("version", "compatible", "said"),
    [
        ("0.2.0", "picket-arm64", "version 0.2.0 is older than 0.2.1"),
        ("0.2", "picket-arm64", "older than"),
        ("9", "toaster", "is for 'toaster'"),
        ("9", "picket-arm64-csi-imx219", "csi-imx219', this is picket-arm64$"),
        ("1.0-evil", "picket-arm64", "is no version"),
        ("", "picket-arm64", "is no version"),
    ],
)
def test_what_is_older_or_for_another_machine_is_refused_before_it_is_installed(
    box: Path, version: str, compatible: str, said: str
) -> None:
    with pytest.raises(UpdateError, match=said):
        update(bundle(box, version, compatible), say=print, release=box / "release")
    assert ran(box) == ["info"]
    assert not ran(box, "systemctl")


def test_a_node_takes_updates_of_its_own_kind_alone(box: Path) -> None:
    (box / "release").write_text("0.2.1\npicket-arm64-csi-imx219\n")
    with pytest.raises(UpdateError, match="is for 'picket-arm64', this is picket-arm64-csi-imx219"):
        update(bundle(box, "0.3"), say=print, release=box / "release")
    said: list[str] = []
    update(bundle(box, "0.3", "picket-arm64-csi-imx219"), say=said.append, release=box / "release")
    assert ran(box) == ["info", "info", "install"]


def test_an_installation_that_fails_does_not_restart(box: Path) -> None:
    path = bundle(box, "0.3")
    path.write_text(path.read_text().replace("}", ', "broken": 1}'))
    with pytest.raises(UpdateError, match="rauc: LastError: no space"):
        update(path, say=print, release=box / "release")
    assert not ran(box, "systemctl")


def test_what_is_no_bundle_is_one_line(
    box: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["update", str(tmp_path / "none.raucb")]) == 1
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "noise").write_text("nothing of the kind")
    with pytest.raises(UpdateError, match="does not tell what it is"):
        update(tmp_path / "noise", say=print, release=box / "release")
    with pytest.raises(UpdateError, match="no image of Picket's"):
        update(bundle(box, "1"), say=print, release=box / "none")
