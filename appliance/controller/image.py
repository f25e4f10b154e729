"""The card's image on this side: its hash, its first partition, and a real card that takes it.

Enters: an image (.img or .img.zst) with its .sha256, and a device or a file. Leaves: the same
bytes there, read back and compared, with one node's picket-provision.toml in the first partition.
No loop device and no mount: the FAT is written by mtools. What is refused is refused before the
first byte is written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import ImageError
from appliance.system import card

_BLOCK = 4 * 1024 * 1024
_SECTOR = 512
_ZSTD = 0xFD2FB528
_PACKAGES = {"mcopy": "mtools", "mtype": "mtools", "zstd": "zstd"}
Progress = Callable[[int], None]
"""Told how many bytes more were done."""


def _quiet(_: int) -> None:
    """Nobody looks."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose hash was found to be right.

    Attributes:
        path: .img or .img.zst.
        sha256: of that file, hexadecimal.
        size: of what it unpacks to, bytes.
    """

    path: Path
    sha256: str
    size: int


def verify(path: Path, progress: Progress = _quiet) -> Image:
    """Hold an image against the .sha256 beside it.

    Raises:
        ImageError: one of the two is missing, or they do not belong together.
    """
    beside = path.with_name(f"{path.name}.sha256")
    try:
        words = beside.read_text(encoding="ascii").split()
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                progress(len(block))
    except OSError as e:
        raise ImageError(f"{e.filename}: cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise ImageError(f"{beside}: is no SHA-256") from e
    wanted = words[0].lower() if words else ""
    if wanted != digest.hexdigest():
        raise ImageError(
            f"{path}: SHA-256 is {digest.hexdigest()}, but {beside.name} says {wanted or 'nothing'}"
        )
    return Image(path, wanted, _unpacked_bytes(path))


def require(tool: str) -> str:
    """The path of a program.

    Raises:
        ImageError: it is missing; names its Debian package.
    """
    found = shutil.which(tool)
    if found is None:
        raise ImageError(f"{tool} is missing: apt install {_PACKAGES.get(tool, tool)}")
    return found


def _unpacked_bytes(path: Path) -> int:
    """Size of the raw image; for zstd from its frame header (RFC 8878, 3.1.1.1)."""
    if path.suffix != ".zst":
        return path.stat().st_size
    with path.open("rb") as file:
        head = file.read(18)
    if len(head) < 6 or struct.unpack_from("<I", head)[0] != _ZSTD:  # noqa: PLR2004
        raise ImageError(f"{path}: is not compressed by zstd")
    flags = head[4]
    single = flags >> 5 & 1
    at = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    width = (1 if single else 0, 2, 4, 8)[flags >> 6]
    if width == 0 or len(head) < at + width:
        raise ImageError(f"{path}: does not say how large it is: compress it from a file")
    size = int.from_bytes(head[at : at + width], "little")
    return size + 256 if width == 2 else size  # noqa: PLR2004 - as RFC 8878 says


@contextmanager
def _raw(image: Image) -> Iterator[Iterator[bytes]]:
    """Its bytes, unpacked, in blocks."""
    if image.path.suffix != ".zst":
        with image.path.open("rb") as file:
            yield iter(lambda: file.read(_BLOCK), b"")
        return
    command = [require("zstd"), "--decompress", "--stdout", "--quiet", str(image.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        out, said = child.stdout, child.stderr
        if out is None or said is None:
            raise ImageError("zstd: no pipe")
        yield iter(lambda: out.read(_BLOCK), b"")
        why = said.read().decode(errors="replace").strip()
    if child.returncode != 0:
        raise ImageError(f"{image.path}: {why or 'zstd failed'}")


def write(target: Path, image: Image, progress: Progress = _quiet) -> None:
    """Write an image, wait for the card, read it back.

    Args:
        target: a device, or a file that exists.
        image: verified.
        progress: told of bytes written, and again of bytes read back.

    Raises:
        ImageError: it does not fit, cannot be written, or comes back as something else.
    """
    written, count = hashlib.sha256(), 0
    try:
        with open(target, "r+b", opener=_alone) as file, _raw(image) as blocks:
            for block in blocks:
                file.write(block)
                written.update(block)
                count += len(block)
                progress(len(block))
            file.flush()
            os.fsync(file.fileno())
        if count != image.size:
            raise ImageError(f"{image.path}: {count} bytes came out of it: {image.size} were told")
        if _digest(target, count, progress) != written.digest():
            raise ImageError(f"{target}: comes back as something else: the card is bad")
    except OSError as e:
        raise ImageError(f"{target}: cannot be written: {e.strerror}") from e


def _alone(path: str, flags: int) -> int:
    """A device that something else has, such as a mount in another namespace, is refused."""
    return os.open(path, flags | os.O_EXCL)


def _digest(path: Path, count: int, progress: Progress) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        # What was just written is still in memory; the card is to be asked.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while count:
            block = file.read(min(_BLOCK, count))
            if not block:
                break
            digest.update(block)
            count -= len(block)
            progress(len(block))
    return digest.digest()


def first_partition(target: Path) -> int:
    """Where the first partition begins, in bytes.

    Raises:
        ImageError: there is no partition table, or its first partition is no FAT.
    """
    with target.open("rb") as file:
        table = file.read(_SECTOR)
    if len(table) < _SECTOR or table[510:] != b"\x55\xaa":
        raise ImageError(f"{target}: has no partition table")
    kind, start = table[446 + 4], struct.unpack_from("<I", table, 446 + 8)[0]
    if kind not in {0x06, 0x0B, 0x0C, 0x0E} or start == 0:
        raise ImageError(f"{target}: its first partition is of type {kind:#04x}, no FAT")
    return int(start) * _SECTOR


def personalise(target: Path, provision: bytes) -> None:
    """Put picket-provision.toml in the first partition, and read it back.

    Args:
        target: a device or a file with an image on it.
        provision: the content.

    Raises:
        ImageError: it is not there afterwards.
    """
    mcopy, mtype = require("mcopy"), require("mtype")
    place = f"{target}@@{first_partition(target)}"
    with tempfile.NamedTemporaryFile(prefix="picket-") as file:  # mode 0600: it holds a token
        file.write(provision)
        file.flush()
        run([mcopy, "-o", "-i", place, file.name, f"::{card.FILE}"])
    if run([mtype, "-i", place, f"::{card.FILE}"]) != provision:
        raise ImageError(f"{target}: {card.FILE} comes back as something else")
    _sync(target)


def run(command: list[str]) -> bytes:
    """What a program says; its last line on stderr is the reason if it fails."""
    environment = os.environ | {"MTOOLS_SKIP_CHECK": "1"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    if done.returncode != 0:
        why = done.stderr.decode(errors="replace").strip().splitlines()
        raise ImageError(f"{Path(command[0]).name}: {why[-1] if why else 'failed'}")
    return done.stdout


def _sync(target: Path) -> None:
    number = os.open(target, os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@dataclass(frozen=True, slots=True)
class Device:
    """A card in a reader.

    Attributes:
        path: /dev/sdX.
        size: bytes.
        what: its maker's name for it, "" if it has none.
    """

    path: Path
    size: int
    what: str


def look(
    path: Path, needed: int, *, system: Path = Path("/sys"), mounts: Path = Path("/proc/mounts")
) -> Device:
    """Whether a device may be overwritten.

    Args:
        path: of the whole device.
        needed: bytes.
        system: where the kernel tells of devices.
        mounts: where it tells of mounts, as /proc/mounts.

    Raises:
        ImageError: not a block device, a partition, read-only, in use, or too small.
    """
    try:
        found = path.resolve().stat()
    except OSError as e:
        raise ImageError(f"{path}: {e.strerror}") from e
    if not stat.S_ISBLK(found.st_mode):
        raise ImageError(f"{path}: is not a block device")
    name = path.resolve().name
    block = system / "class/block" / name
    if (block / "partition").exists():
        raise ImageError(f"{path}: is a partition: name the whole card")
    if _read(block / "ro") == "1":
        raise ImageError(f"{path}: is read-only: look at the card's switch")
    parts = [name, *sorted(p.parent.name for p in block.glob(f"{name}*/partition"))]
    for line in mounts.read_text(encoding="utf-8").splitlines():
        source, where = line.split(" ")[:2]
        if Path(source).name in parts and source.startswith("/dev/"):
            raise ImageError(f"{path}: {source} is mounted on {where}: umount {source}")
    for part in parts:
        holder = next((system / "class/block" / part / "holders").glob("*"), None)
        if holder is not None:
            raise ImageError(f"{path}: {part} is in use by {holder.name}")
    size = int(_read(block / "size") or 0) * _SECTOR
    if size < needed:
        raise ImageError(f"{path}: {size} bytes: the image needs {needed}")
    model = " ".join(f"{_read(block / 'device/vendor')} {_read(block / 'device/model')}".split())
    return Device(path, size, model)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:  # what a device does not tell, sysfs has no file for
        return ""
