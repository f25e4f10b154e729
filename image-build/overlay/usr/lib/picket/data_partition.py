#!/usr/bin/python3 -sB
"""Opens the data partition before anything is mounted from it, and makes it where it is new.

Enters: the card, the board. Leaves: /run/picket-data, a link to the device that is to be mounted
on /data, and /run/picket-data.json, which says what it is; or exit status 1, FAULT and the reason
in picket-status.txt on the first partition.

On a board with a secret (board_secret.py) a new data partition is made anew as LUKS2, before
anything was on it; the key is derived from that secret at every start and is nowhere on the card.
How far that has come is the partition's type in the table: one byte, of which a power cut leaves
the old one or the new one:

    0x83  as the image came, and never encrypted: what is on it is in the clear
    0xda  being made: nothing is on it yet, it is made again
    0xe8  encrypted, and whole: from then on it is opened, or it is a fault; never made again
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Protocol

import board_secret
from board_secret import BoardSecretError, Source

PARTUUID = "9ac4e700-07"
LINK, STATE = Path("/run/picket-data"), Path("/run/picket-data.json")
BOOT = Path("/boot/picket")
STATUS = "picket-status.txt"
FOLDERS = ("etc", "link", "keys", "join", "system", "rauc", "faults")
"""As in the image."""
PLAIN, MAKING, SEALED = 0x83, 0xDA, 0xE8
_MAPPED = "picket-data"
_EXTENDED, _LOGICAL = (0x05, 0x0F), 8
_SECTOR, _MIB = 512, 1 << 20
_OTHER_BOARD = (
    "put the card back into the board that it was made in; to use it here, write the image on it"
    " anew: what is on it is lost"
)
_DAMAGED = "write the image on the card anew: what is on it is lost"


class ShutError(Exception):
    """The data partition stays shut: why, and what to do."""

    def __init__(self, why: str, advice: str) -> None:
        super().__init__(why)
        self.advice = advice


class Found(Enum):
    """What the first bytes of the partition are."""

    NEW = "a file system that was never mounted"
    USED = "a file system"
    LUKS = "LUKS2"
    NOTHING = "neither file system nor LUKS2"


class Step(Enum):
    """What is to be done."""

    USE = 1
    OPEN = 2
    ENCRYPT = 3
    FORMAT = 4


@dataclass(frozen=True)
class State:
    """What became of it.

    Attributes:
        encrypted: whether it is.
        by: name of the source of the secret.
        why: why it is not.
        fault: why it is shut, "" where it is not.
    """

    encrypted: bool = False
    by: str = ""
    why: str = ""
    fault: str = ""


def plan(mark: int, found: Found, *, secret: bool) -> Step:
    """What is to be done.

    Args:
        mark: the partition's type.
        found: on it.
        secret: whether this board has one.

    Raises:
        ShutError: it must not be touched.
    """
    if mark == MAKING:
        return Step.ENCRYPT if secret else Step.FORMAT
    if mark == SEALED:
        if found is not Found.LUKS:
            raise ShutError(f"the encrypted data partition is damaged: {found.value}", _DAMAGED)
        if not secret:
            raise ShutError(
                "the data partition is encrypted to a board, and this one has no TPM and no key"
                " in its OTP", _OTHER_BOARD,
            )  # fmt: skip
        return Step.OPEN
    if mark != PLAIN or found not in {Found.NEW, Found.USED}:
        raise ShutError(f"the data partition (type {mark:#x}) holds {found.value}", _DAMAGED)
    return Step.ENCRYPT if secret and found is Found.NEW else Step.USE


def look(device: Path) -> Found:
    """What is on a partition."""
    with device.open("rb") as file:
        head = file.read(4096)
    if head[:6] == b"LUKS\xba\xbe" and head[6:8] == b"\x00\x02":
        return Found.LUKS
    if head[1080:1082] != b"\x53\xef":  # s_magic of ext4's superblock, which is at 1024
        return Found.NOTHING
    (mounted,) = struct.unpack_from("<I", head, 1024 + 44)  # s_mtime
    return Found.USED if mounted else Found.NEW


class Table:
    """The last logical partition's type, in the table of a disk or an image.

    Args:
        disk: with an MBR.
    """

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        with disk.open("rb") as file:
            kind, base = _entry(file, 0, 3)
            if kind not in _EXTENDED or not base:
                raise ShutError(f"{disk}: partition 4 is not extended", _DAMAGED)
            table = base
            for _ in range(_LOGICAL):
                kind, following = _entry(file, table, 1)
                if kind not in _EXTENDED:
                    break
                table = base + following
            else:
                raise ShutError(f"{disk}: its partitions have no end", _DAMAGED)
            self.mark, _ = _entry(file, table, 0)
        self._at = table * _SECTOR + 446 + 4

    def set(self, mark: int) -> None:
        """Change it; it is on the card when this returns."""
        number = os.open(self._disk, os.O_WRONLY)
        try:
            os.pwrite(number, bytes([mark]), self._at)
            os.fsync(number)
        finally:
            os.close(number)
        self.mark = mark


def _entry(file: BinaryIO, sector: int, number: int) -> tuple[int, int]:
    """Type and start of an entry of a table."""
    file.seek(sector * _SECTOR + 446 + number * 16)
    raw = file.read(16)
    if len(raw) < 16:  # noqa: PLR2004 - an entry
        raise ShutError("the card's partition table is cut off", _DAMAGED)
    return raw[4], struct.unpack_from("<I", raw, 8)[0]


class Hands(Protocol):
    """What is done by other programs."""

    def encrypt(self, device: Path, key: bytes) -> None:
        """LUKS2 with one key."""

    def open(self, device: Path, key: bytes) -> Path | None:
        """The device behind it; None if this is not its key."""

    def format(self, device: Path) -> None:
        """A file system with FOLDERS."""


class Programs:
    """cryptsetup and mke2fs."""

    def encrypt(self, device: Path, key: bytes) -> None:
        """See Hands.

        The key has 256 bits, so that nothing is won by stretching it: a board with 512 MB has no
        memory for argon2, and a thousand rounds (the least) cost no time.
        """
        run([
            "cryptsetup", "luksFormat", "--batch-mode", "--type=luks2", "--label=picket-data",
            "--cipher=aes-xts-plain64", "--key-size=512", "--sector-size=4096",
            "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--hash=sha256",
            "--key-file=-", str(device),
        ], key)  # fmt: skip

    def open(self, device: Path, key: bytes) -> Path | None:
        """See Hands."""
        words = ["cryptsetup", "open", "--type=luks2", "--key-file=-", str(device), _MAPPED]
        try:
            run(words, key)
        except subprocess.CalledProcessError as e:
            if e.returncode == _NOT_ITS_KEY:
                return None
            raise
        return Path("/dev/mapper") / _MAPPED

    def format(self, device: Path) -> None:
        """See Hands."""
        import tempfile

        with tempfile.TemporaryDirectory(prefix="picket-data-", dir="/run") as name:
            for folder in FOLDERS:
                (Path(name) / folder).mkdir(mode=0o755)
            Path(name).chmod(0o755)
            run([
                "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", "data",
                "-E", "nodiscard", "-d", name, str(device),
            ])  # fmt: skip


_NOT_ITS_KEY = 2
"""cryptsetup(8), return codes: no permission, bad pass phrase."""


def run(words: Sequence[str], given: bytes = b"") -> None:
    """Run a program.

    Raises:
        subprocess.CalledProcessError: it failed; the error has what it said.
    """
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    subprocess.run(words, input=given, capture_output=True, check=True, env=path)


def scrub(device: Path) -> None:
    """Overwrite what the image left: whatever is there before is there in the clear."""
    zeros = bytes(_MIB)
    with device.open("r+b", buffering=0) as file:
        head = file.read(4096)
        if head[1080:1082] != b"\x53\xef":
            return
        blocks, _, _, _, _, log = struct.unpack_from("<6I", head, 1024 + 4)
        end = min(blocks << (10 + log), file.seek(0, os.SEEK_END))
        # Backwards: cut off, it finds the first block again, and with it how far to go.
        for start in reversed(range(0, end, _MIB)):
            file.seek(start)
            if file.read(_MIB).strip(b"\0"):
                file.seek(start)
                file.write(zeros[: max(0, end - start)])
        os.fsync(file.fileno())


def prepare(
    disk: Path,
    device: Path,
    sources: Sequence[Source],
    hands: Hands,
    settle: Callable[[], None] = lambda: None,
) -> tuple[Path, State]:
    """Open the data partition, or make it.

    Args:
        disk: that it is on.
        device: the partition.
        sources: of the board's secret.
        hands: cryptsetup and mke2fs.
        settle: waits until every device of the board is there. Not called where that changes
            nothing: it is long, and everything waits for this.

    Returns:
        What is to be mounted, and what it is.

    Raises:
        ShutError: it stays shut.
    """
    table, found = Table(disk), look(device)
    if table.mark == PLAIN and found is Found.USED:
        return device, State(why=_NO_SECRET)
    if table.mark == SEALED and found is Found.LUKS:
        opened = _open(device, _secrets(sources)[0], hands)
        if opened:
            return opened
    settle()
    secrets, refused = _secrets(sources)
    step = plan(table.mark, found, secret=bool(secrets or refused))
    if refused and (step is Step.ENCRYPT or (step is Step.OPEN and not secrets)):
        raise ShutError(f"the board's secret cannot be had: {'; '.join(refused)}", _OTHER_BOARD)
    if step is Step.OPEN:
        return _opened(device, secrets, hands)
    if step is Step.USE:
        return device, State(why=_NO_SECRET)
    table.set(MAKING)
    if step is Step.FORMAT:
        hands.format(device)
        table.set(PLAIN)
        return device, State(why=_NO_SECRET)
    scrub(device)
    name, secret = secrets[0]
    hands.encrypt(device, board_secret.key(secret))
    mapped, state = _opened(device, [(name, secret)], hands)
    hands.format(mapped)
    os.sync()
    table.set(SEALED)
    return mapped, state


_NO_SECRET = "made on a board without TPM and without a key in its OTP"  # noqa: S105 - words


def _secrets(sources: Sequence[Source]) -> tuple[list[tuple[str, bytes]], list[str]]:
    secrets, refused = [], []
    for source in sources:
        try:
            secret = source.secret()
        except BoardSecretError as e:
            refused.append(str(e))
        else:
            if secret is not None:
                secrets.append((source.name, secret))
    return secrets, refused


def _open(
    device: Path, secrets: Sequence[tuple[str, bytes]], hands: Hands
) -> tuple[Path, State] | None:
    for name, secret in secrets:
        mapped = hands.open(device, board_secret.key(secret))
        if mapped is not None:
            return mapped, State(encrypted=True, by=name)
    return None


def _opened(device: Path, secrets: Sequence[tuple[str, bytes]], hands: Hands) -> tuple[Path, State]:
    opened = _open(device, secrets, hands)
    if opened:
        return opened
    raise ShutError(
        "the data partition is encrypted to another board: the secret of this one does not open it",
        _OTHER_BOARD,
    )


def await_tpm(
    device_tree: Path = Path("/proc/device-tree"), dev: Path = Path("/dev"), within_s: float = 20.0
) -> None:
    """Wait for a TPM that the board's description names: its driver may be late.

    Raises:
        ShutError: one is named, and does not come.
    """
    named = any(b"tpm" in path.read_bytes() for path in device_tree.rglob("compatible"))
    deadline_s = time.monotonic() + within_s
    while named and not (dev / "tpmrm0").exists():
        if time.monotonic() > deadline_s:
            raise ShutError("the board has a TPM, and it does not answer", _OTHER_BOARD)
        time.sleep(0.1)


def settle() -> None:
    """Wait for every device of this board."""
    run(["udevadm", "settle", "--timeout=60"])
    await_tpm()


def tell(boot: Path, why: str, advice: str) -> None:
    """Say in picket-status.txt why nothing starts."""
    lines = ["state: FAULT", f"why: {why}", f"what to do: {advice}", ""]
    text = "\r\n".join(lines).encode()
    path = boot / STATUS
    if path.exists() and path.read_bytes() == text:
        return
    run(["mount", "-o", "remount,rw", str(boot)])
    try:
        new = boot / "picket-status.new"
        with new.open("wb") as file:
            file.write(text)
            os.fsync(file.fileno())
        new.replace(path)
        os.sync()
    finally:
        run(["mount", "-o", "remount,ro", str(boot)])


def main() -> int:
    """Do it for this machine."""
    device = Path("/dev/disk/by-partuuid") / PARTUUID
    try:
        device = device.resolve(strict=True)
        disk = Path("/dev") / Path("/sys/class/block", device.name).resolve().parent.name
        mapped, state = prepare(disk, device, board_secret.SOURCES, Programs(), settle)
    except ShutError as e:
        return _shut(str(e), e.advice)
    except subprocess.CalledProcessError as e:
        said = e.stderr.decode(errors="replace").strip().splitlines() or [str(e.returncode)]
        return _shut(f"the data partition: {e.cmd[0]}: {said[-1]}", _DAMAGED)
    except OSError as e:
        return _shut(f"the data partition: {e}", _DAMAGED)
    _note(state)
    LINK.unlink(missing_ok=True)
    LINK.symlink_to(mapped)
    print(f"data is {mapped}: {f'encrypted, {state.by}' if state.encrypted else state.why}")
    return 0


def _note(state: State) -> None:
    STATE.write_text(json.dumps(asdict(state)), encoding="utf-8")


def _shut(why: str, advice: str) -> int:
    print(f"<3>data stays shut: {why}", file=sys.stderr)
    _note(State(fault=why))
    try:
        tell(BOOT, why, advice)
    except (OSError, subprocess.CalledProcessError) as e:
        print(f"<3>{BOOT / STATUS}: cannot be written: {e}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
