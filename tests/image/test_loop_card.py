"""`picketctl provision --device`, end to end, on a block device of the kernel's."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.controller.cli import main
from appliance.controller.image import first_partition
from appliance.system import card
from tests.image.raw_image import MTOOLS, hashed, raw_image

LOSETUP = shutil.which("losetup", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
NEEDED = 9 * 1024 * 1024
ZSTD = shutil.which("zstd")
pytestmark = [
    pytest.mark.skipif(not (MTOOLS and LOSETUP and ZSTD), reason="mtools, losetup or zstd missing"),
    pytest.mark.usefixtures("desk"),
]


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    """What is on the card: of its former life."""
    path = tmp_path / "card"
    path.write_bytes(b"\xa5" * (NEEDED + 4096))
    return path


@pytest.fixture
def device(backing: Path) -> Iterator[Path]:
    """A card in a reader: a loop device."""
    done = subprocess.run(
        [str(LOSETUP), "--find", "--show", str(backing)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    yield Path(done.stdout.strip())
    subprocess.run([str(LOSETUP), "--detach", done.stdout.strip()], check=True)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a fleet, and with the image that `make image` left there."""
    assert main(["init", str(tmp_path / "FLEET"), "--name", "harbour"]) == 0
    (tmp_path / "dist").mkdir()
    raw = raw_image(tmp_path / "picket-0.1.0-arm64.img")
    packed = tmp_path / "dist" / f"{raw.name}.zst"
    subprocess.run([str(ZSTD), "-q", str(raw), "-o", str(packed)], check=True)
    hashed(packed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(device: Path, *words: str) -> int:
    """As the issue has it: nothing but the card and the node."""
    return main(["provision", "--device", str(device), "--node", "cam-017", *words])


def test_a_card_is_written_after_its_name_was_typed(
    device: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{device}\n"))
    assert written(device) == 0
    said = capsys.readouterr()
    assert "will be overwritten with picket-0.1.0-arm64.img.zst" in said.err
    assert f"{device}: is cam-017's card: written, read back, the same" in said.out
    place = f"{device}@@{first_partition(device)}"
    provision = subprocess.run(
        [str(shutil.which("mtype")), "-i", place, f"::{card.FILE}"],
        capture_output=True, check=True, env=os.environ | {"MTOOLS_SKIP_CHECK": "1"},
    )  # fmt: skip
    assert b'id = "cam-017"' in provision.stdout
    assert b"token = " in provision.stdout


def test_a_card_whose_name_was_not_typed_is_left_as_it_is(
    device: Path, backing: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = backing.read_bytes()
    for typed in ("", "yes\n", "/dev/sdx\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert written(device) == 1
        assert "was left as it is" in capsys.readouterr().err
    assert backing.read_bytes() == before


def test_a_device_that_something_else_has_is_left_as_it_is(
    device: Path, backing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = backing.read_bytes()
    other = os.open(device, os.O_RDWR | os.O_EXCL)  # as a mount has it
    try:
        assert written(device, "--yes") == 1
    finally:
        os.close(other)
    assert f"{device}: cannot be written: Device or resource busy" in capsys.readouterr().err
    assert backing.read_bytes() == before


def test_a_card_that_is_too_small_is_left_as_it_is(
    device: Path, backing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(backing, NEEDED - 512)
    subprocess.run([str(LOSETUP), "--set-capacity", str(device)], check=True)
    before = backing.read_bytes()
    assert written(device, "--yes") == 1
    assert f"{NEEDED - 512} bytes: the image needs {NEEDED}" in capsys.readouterr().err
    assert backing.read_bytes() == before


def test_without_an_image_that_was_made_here_one_is_named(
    desk: Path, device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (desk / "dist").iterdir():
        path.unlink()
    assert written(device, "--yes") == 2
    assert "--device needs --image: 0 are dist/picket-*" in capsys.readouterr().err
