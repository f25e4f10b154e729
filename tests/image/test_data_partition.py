"""The data partition on its first start and every later one, on a file.

Cut off anywhere, on another board, damaged. What device-mapper makes of it is shown in the
emulator (card/sealed.py).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from appliance.system import card
from appliance.system import data as said
from tests.image.board import File, script

board, data = script("board_secret"), script("data_partition")
CRYPTSETUP = shutil.which("cryptsetup", path="/usr/sbin:/usr/bin")
MKE2FS = shutil.which("mke2fs", path="/usr/sbin:/usr/bin")
pytestmark = pytest.mark.skipif(
    CRYPTSETUP is None or MKE2FS is None, reason="cryptsetup or mke2fs is missing"
)
MIB = 1 << 20
LOOP = (bytes(498) + b"\x0f" + bytes(3) + b"\1").ljust(512 + 466, b"\0") + b"\x0f" + bytes(999)
OLD = b"left by whoever made the image"


class CutError(Exception):
    """The power went."""


class Hands:
    """The real programs, on files; what is behind LUKS is a file beside it.

    Args:
        cuts: so many calls are left until the power goes, in the middle of one.
    """

    def __init__(self, folder: Path, cuts: int = 99) -> None:
        self._folder, self._cuts, self._real = folder, cuts, data.Programs()
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self._cuts -= 1
        if self._cuts < 0:
            raise CutError

    def encrypt(self, device: Path, key: bytes) -> None:
        self._call("encrypt")
        self._real.encrypt(device, key)
        self._call("encrypted")

    def open(self, device: Path, key: bytes) -> Path | None:
        self._call("open")
        words = [str(CRYPTSETUP), "open", "--test-passphrase", "--key-file=-", str(device)]
        done = subprocess.run(words, input=key, capture_output=True, check=False)
        assert done.returncode in {0, 2}, done.stderr
        mapped = self._folder / "mapped"
        if done.returncode == 0 and not mapped.exists():
            with mapped.open("wb") as file:
                file.truncate(48 * MIB)
        return None if done.returncode else mapped

    def format(self, device: Path) -> None:
        self._call("format")
        self._real.format(device)
        self._call("formatted")


class Box:
    """A card, and boards to put it in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.disk, self.device = folder, folder / "disk", folder / "device"
        tables = {0: (3, 0x0F, 100), 100: (0, 0x83, 1), 300: (0, data.PLAIN, 1)}
        content = bytearray(512 * 400)
        for sector, (number, kind, start) in tables.items():
            struct.pack_into("<4xB3xII", content, sector * 512 + 446 + 16 * number, kind, start, 99)
        struct.pack_into("<4xB3xII", content, 100 * 512 + 446 + 16, 0x05, 200, 99)
        self.disk.write_bytes(content)
        with self.device.open("wb") as file:
            file.truncate(64 * MIB)
        self.mkfs(self.device)
        with self.device.open("r+b") as file:
            file.seek(40 * MIB)
            file.write(OLD)

    def mkfs(self, device: Path) -> None:
        data.Programs().format(device)

    def mounted(self) -> None:
        """As the kernel notes that a file system is in use."""
        with self.device.open("r+b") as file:
            file.seek(1024 + 44)
            file.write(struct.pack("<I", 1_764_000_000))

    def board(self, number: int | None) -> list[Any]:
        path = self.folder / f"board{number}"
        if number is not None:
            path.write_bytes(bytes([number]) * 32)
        return [File(self.folder / "no TPM"), File(path)]

    def starts(
        self, number: int | None, hands: Any = None, settle: Any = lambda: None
    ) -> tuple[Path, Any]:
        made: tuple[Path, Any] = data.prepare(
            self.disk, self.device, self.board(number), hands or Hands(self.folder), settle
        )
        return made

    @property
    def mark(self) -> int:
        return int(data.Table(self.disk).mark)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_new_card_is_encrypted_where_the_board_has_a_secret(box: Box) -> None:
    mapped, state = box.starts(1)
    assert (state.encrypted, state.by, state.fault) == (True, "file", "")
    assert box.mark == data.SEALED
    assert data.look(box.device) is data.Found.LUKS
    assert data.look(mapped) is data.Found.NEW
    raw = box.device.read_bytes()
    assert OLD not in raw, "what the image left is overwritten"
    assert bytes([1]) * 32 not in raw
    assert board.key(bytes([1]) * 32) not in raw
    hands = Hands(box.folder)
    assert box.starts(1, hands, _never) == (mapped, state)
    assert hands.calls == ["open"], "a later start opens, and no more"


def test_its_folders_are_the_images(box: Box) -> None:
    mapped, _ = box.starts(1)
    listed = subprocess.run(
        ["/usr/sbin/debugfs", "-R", "ls -p /", str(mapped)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    names = {line.split("/")[5] for line in listed.splitlines() if line}
    assert set(data.FOLDERS) == names - {".", "..", "lost+found"}
    assert "/040755/0/0/etc/" in listed
    packed = (Path(__file__).resolve().parents[2] / "image-build/pack.py").read_text()
    assert ", ".join(f'"{name}"' for name in data.FOLDERS) in packed
    assert data.STATUS == card.STATUS


@pytest.mark.parametrize("number", [1, None])
def test_what_is_written_down_is_read_by_the_node(box: Box, number: int | None) -> None:
    _, state = box.starts(number)
    path = box.folder / "picket-data.json"
    assert (said.said(path), said.in_the_clear(path)) == ({}, False)
    path.write_text(json.dumps(dataclasses.asdict(state)))
    assert said.in_the_clear(path) is (number is None)
    assert said.said(path)["fault"] == ""
    assert said.STATE == data.STATE


def test_a_board_without_a_secret_uses_it_as_it_is_and_says_so(box: Box) -> None:
    before = box.device.read_bytes()
    hands = Hands(box.folder)
    device, state = box.starts(None, hands)
    assert (device, state.encrypted) == (box.device, False)
    assert state.why == "made on a board without TPM and without a key in its OTP"
    assert hands.calls == []
    assert box.device.read_bytes() == before
    assert box.mark == data.PLAIN


def test_a_node_that_has_run_in_the_clear_is_never_made_anew(box: Box) -> None:
    box.mounted()
    hands = Hands(box.folder)
    device, state = box.starts(1, hands, _never)
    assert (device, state.encrypted, hands.calls) == (box.device, False, [])
    assert state.why == "made on a board without TPM and without a key in its OTP"


@pytest.mark.parametrize("number", [2, None])
def test_another_board_does_not_open_it_and_leaves_it_as_it_is(
    box: Box, number: int | None
) -> None:
    box.starts(1)
    before = box.device.read_bytes()
    with pytest.raises(data.ShutError, match="encrypted to a") as shut:
        box.starts(number)
    assert "back into the board" in shut.value.advice
    assert (box.device.read_bytes(), box.mark) == (before, data.SEALED)
    assert box.starts(1)[1].encrypted


def test_the_power_goes_at_any_moment_of_the_first_start(box: Box) -> None:
    """Whatever is half made is made again; what is whole is only opened."""
    for cuts in itertools.count():
        try:
            box.starts(1, Hands(box.folder, cuts))
        except CutError:
            assert box.mark == data.MAKING
            (box.folder / "mapped").unlink(missing_ok=True)
        else:
            break
    assert cuts == 5, "encrypt, encrypted, open, format, formatted"
    assert box.mark == data.SEALED
    assert OLD not in box.device.read_bytes()


def test_a_half_made_one_is_made_in_the_clear_where_there_is_no_secret(box: Box) -> None:
    with pytest.raises(CutError):
        box.starts(1, Hands(box.folder, 2))
    device, state = box.starts(None)
    assert (device, state.encrypted, box.mark) == (box.device, False, data.PLAIN)
    assert data.look(box.device) is data.Found.NEW


def test_zeroing_that_was_cut_off_is_done_to_its_end(box: Box) -> None:
    data.scrub(box.device)
    assert not box.device.read_bytes().strip(b"\0")
    data.scrub(box.device)


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("number", [1, None])
def test_a_damaged_one_is_a_fault_and_left_alone(
    box: Box, number: int | None, *, encrypted: bool
) -> None:
    if encrypted:
        box.starts(1)
    with box.device.open("r+b") as file:
        file.write(os.urandom(64 * 1024))
    before = box.device.read_bytes()
    hands = Hands(box.folder)
    with pytest.raises(data.ShutError, match="neither file system nor LUKS2"):
        box.starts(number, hands)
    assert (box.device.read_bytes(), hands.calls) == (before, [])


def test_a_secret_that_cannot_be_had_is_never_taken_for_none(box: Box) -> None:
    (box.folder / "no TPM").write_bytes(b"broken")
    with pytest.raises(data.ShutError, match=r"cannot be had: .* 6 bytes, not 32"):
        box.starts(1)
    assert box.mark == data.PLAIN
    (box.folder / "no TPM").unlink()
    box.starts(1)
    (box.folder / "no TPM").write_bytes(b"broken")
    assert box.starts(1)[1].encrypted, "another source opens it"
    with pytest.raises(data.ShutError, match="cannot be had"):
        box.starts(None)


def _never() -> None:
    raise AssertionError("nothing is waited for where it changes nothing")


def test_a_secret_that_is_late_is_waited_for(box: Box) -> None:
    late = box.folder / "no TPM"

    def comes() -> None:
        late.write_bytes(bytes([7]) * 32)

    assert box.starts(None, settle=comes)[1].encrypted
    late.unlink()
    assert box.starts(None, settle=comes)[1].encrypted


def test_a_tpm_that_is_named_is_waited_for(tmp_path: Path) -> None:
    tree, dev = tmp_path / "tree", tmp_path / "dev"
    (tree / "soc/spi/tpm@1").mkdir(parents=True)
    dev.mkdir()
    data.await_tpm(tree, dev, 0.0)
    (tree / "soc/spi/tpm@1/compatible").write_bytes(b"infineon,slb9670\0tcg,tpm_tis-spi\0")
    with pytest.raises(data.ShutError, match="does not answer"):
        data.await_tpm(tree, dev, 0.0)
    (dev / "tpmrm0").touch()
    data.await_tpm(tree, dev, 0.0)


@pytest.mark.parametrize("mark", [0x00, 0x0C, 0x82])
def test_a_partition_of_another_kind_is_not_touched(box: Box, mark: int) -> None:
    data.Table(box.disk).set(mark)
    with pytest.raises(data.ShutError, match=f"type {mark:#x}"):
        box.starts(1)


def test_a_table_that_is_none_is_a_fault(tmp_path: Path) -> None:
    for content in (b"", bytes(512), bytes(498) + b"\x0f" + bytes(13), LOOP):
        (tmp_path / "disk").write_bytes(content)
        with pytest.raises(data.ShutError):
            data.Table(tmp_path / "disk")
