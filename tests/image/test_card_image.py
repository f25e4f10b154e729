"""An image, a card, and everything for which a card is not overwritten."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from appliance.controller.cli import main
from appliance.controller.image import (
    Image,
    first_partition,
    look,
    personalise,
    verify,
    write,
)
from appliance.errors import ImageError
from tests.image.raw_image import MTOOLS, START, hashed, raw_image

ZSTD = shutil.which("zstd")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw image with a partition table and, where there is mtools, a FAT."""
    return raw_image(tmp_path / "picket.img")


def test_an_image_is_held_against_its_hash(raw: Path) -> None:
    image = verify(raw)
    assert image.size == raw.stat().st_size
    with raw.open("r+b") as file:
        file.seek(600)
        file.write(b"x")
    with pytest.raises(ImageError, match="SHA-256 is"):
        verify(raw)
    raw.with_name("picket.img.sha256").unlink()
    with pytest.raises(ImageError, match=r"picket\.img\.sha256: cannot be read"):
        verify(raw)


@pytest.mark.skipif(ZSTD is None, reason="zstd is missing")
def test_a_compressed_image_tells_its_size_and_is_written_unpacked(
    raw: Path, tmp_path: Path
) -> None:
    subprocess.run([str(ZSTD), "-q", "-3", str(raw)], check=True)
    packed = hashed(raw.with_name("picket.img.zst"))
    image = verify(packed)
    assert image.size == raw.stat().st_size
    target = tmp_path / "card"
    target.touch()
    done: list[int] = []
    write(target, image, done.append)
    assert target.read_bytes() == raw.read_bytes()
    assert sum(done) == 2 * image.size, "written, and read back"


@pytest.mark.skipif(ZSTD is None, reason="zstd is missing")
def test_a_compressed_image_that_breaks_off_is_refused(raw: Path, tmp_path: Path) -> None:
    subprocess.run([str(ZSTD), "-q", "-3", str(raw)], check=True)
    packed = raw.with_name("picket.img.zst")
    packed.write_bytes(packed.read_bytes()[:-4])
    target = tmp_path / "card"
    target.touch()
    with pytest.raises(ImageError, match=r"picket\.img\.zst: "):
        write(target, verify(hashed(packed)))


@pytest.mark.parametrize("content", [b"", b"\x28\xb5\x2f\xfd", b"nothing at all of the kind"])
def test_what_is_not_compressed_by_zstd_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picket.img.zst"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"picket\.img\.zst: "):
        verify(hashed(path))


@pytest.mark.skipif(not MTOOLS, reason="mtools is missing")
def test_a_card_gets_one_nodes_file_and_nothing_else_changes(raw: Path) -> None:
    provision = b"format = 1\n" * 300
    personalise(raw, b"an older one")
    personalise(raw, provision)
    got = subprocess.run(
        [str(shutil.which("mtype")), "-i", f"{raw}@@{START}", "::picket-provision.toml"],
        capture_output=True,
        check=True,
        env=os.environ | {"MTOOLS_SKIP_CHECK": "1"},
    )
    assert got.stdout == provision
    assert first_partition(raw) == START


def test_what_has_no_fat_in_its_first_partition_is_refused(raw: Path) -> None:
    with raw.open("r+b") as file:
        file.seek(446 + 4)
        file.write(b"\x83")
    with pytest.raises(ImageError, match="of type 0x83, no FAT"):
        first_partition(raw)
    raw.write_bytes(b"short")
    with pytest.raises(ImageError, match="no partition table"):
        first_partition(raw)


class Reader:
    """A card reader as the kernel tells of it."""

    def __init__(self, folder: Path) -> None:
        self.device = folder / "sdx"
        try:
            os.mknod(self.device, 0o600 | stat.S_IFBLK, os.makedev(8, 240))
        except PermissionError:
            pytest.skip("may not make a device node")
        self.system, self.mounts = folder / "sys", folder / "mounts"
        self.block = self.system / "class/block/sdx"
        part = self.system / "class/block/sdx1"
        for path in (self.block / "sdx1", self.block / "holders", part / "holders"):
            path.mkdir(parents=True)
        (self.block / "sdx1/partition").write_text("1\n")
        (self.block / "device").mkdir()
        (self.block / "device/model").write_text("SD Reader \n")
        self.says("ro", "0")
        self.says("size", "2048")
        self.mounts.write_text("/dev/vda / ext4 rw 0 0\n")

    def says(self, name: str, what: str) -> None:
        (self.block / name).write_text(f"{what}\n")

    def look(self, needed: int = 0) -> str:
        try:
            device = look(self.device, needed, system=self.system, mounts=self.mounts)
        except ImageError as e:
            return str(e)
        return f"{device.size} {device.what}"


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def test_a_card_in_a_reader_may_be_written(reader: Reader) -> None:
    assert reader.look(1024 * 1024) == "1048576 SD Reader"


def test_a_card_that_is_too_small_is_refused(reader: Reader) -> None:
    assert "1048576 bytes: the image needs 1048577" in reader.look(1048577)


def test_a_mounted_card_is_refused(reader: Reader) -> None:
    reader.mounts.write_text("/dev/vda / ext4 rw 0 0\n/dev/sdx1 /media/card vfat rw 0 0\n")
    assert "/dev/sdx1 is mounted on /media/card: umount /dev/sdx1" in reader.look()


def test_a_partition_a_locked_card_and_one_in_use_are_refused(reader: Reader) -> None:
    reader.says("ro", "1")
    assert "is read-only" in reader.look()
    reader.says("ro", "0")
    (reader.system / "class/block/sdx1/holders/dm-0").touch()
    assert "sdx1 is in use by dm-0" in reader.look()
    reader.says("partition", "1")
    assert "is a partition" in reader.look()


def test_what_is_no_device_is_refused_before_anything_is_asked(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "fleet"), "--name", "harbour"]) == 0
    capsys.readouterr()
    before = raw.read_bytes()
    for device, said in ((raw, "is not a block device"), (tmp_path / "sdq", "No such file")):
        words = ["--device", str(device), "--node", "cam-1", "--image", str(raw)]
        assert main(["provision", *words, "--fleet", str(tmp_path / "fleet")]) == 1
        assert said in capsys.readouterr().err
    assert raw.read_bytes() == before


def test_a_card_that_comes_back_as_something_else_is_bad(tmp_path: Path, raw: Path) -> None:
    image = Image(raw, "", raw.stat().st_size + 1)
    target = tmp_path / "card"
    target.touch()
    with pytest.raises(ImageError, match="bytes came out of it"):
        write(target, image)
    with pytest.raises(ImageError, match="cannot be written: No space"):
        write(Path("/dev/full"), verify(raw))
