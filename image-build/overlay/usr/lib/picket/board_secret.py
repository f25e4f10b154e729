"""A secret that stays in the board: what the data partition is encrypted to.

Enters: a board. Leaves: 32 bytes that this board always gives and no other does, or None where it
has none. Where a secret is there but cannot be had, that is an error: taken for "none", a TPM out
of order would be a card in the clear.

Every source answers `secret()`; `SOURCES` are the real ones, in the order in which they are asked.
Only what Python itself brings is used: this runs before anything of the node is mounted.

What it is good for: a card alone tells nothing, in no other board either. It does not help
against who takes the whole box, as long as the board starts whatever a card says: that takes the
firmware's signed boot.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

SIZE = 32
_LABEL = b"picket: data partition, 1"
"""What a TPM computes its code over; another label, another secret."""


class BoardSecretError(Exception):
    """A secret is there and cannot be had; one line that says why."""


class Source(Protocol):
    """Where a secret may be."""

    name: str

    def secret(self) -> bytes | None:
        """SIZE bytes, the same each time; None where this board has none of this kind.

        Raises:
            BoardSecretError: it has one, and does not give it.
        """


class Tpm:
    """A TPM 2.0: a code over a label, by a key that only this TPM can make.

    The key is a primary one of the owner's hierarchy. It is computed anew at each start from a
    seed that never leaves the TPM, and is always the same: nothing of it is on the card. No PCR
    takes part: a Pi's firmware measures nothing, so they would always say the same, but every
    update of the kernel on a board that does measure would lock the node out.

    Args:
        device: the kernel's, with its resource manager.
        connect: opens it.
    """

    name = "tpm"

    def __init__(
        self,
        device: Path = Path("/dev/tpmrm0"),
        *,
        connect: Callable[[Path], int] = lambda path: os.open(path, os.O_RDWR | os.O_CLOEXEC),
    ) -> None:
        self._device, self._connect = device, connect

    def secret(self) -> bytes | None:
        """See Source."""
        try:
            number = self._connect(self._device)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise BoardSecretError(f"{self._device}: {e.strerror}") from e
        try:
            handle = self._key(number)
            try:
                return self._code(number, handle)
            finally:
                self._ask(number, _NO_SESSIONS, _FLUSH_CONTEXT, handle)
        except OSError as e:
            raise BoardSecretError(f"{self._device}: {e.strerror}") from e
        finally:
            os.close(number)

    def _key(self, number: int) -> bytes:
        """TPM2_CreatePrimary (TPM 2.0 Library, Part 3, 24.1): the handle of an HMAC key."""
        scheme = struct.pack(">HHH", _ALG_HMAC, _ALG_SHA256, 0)  # and no unique field
        public = struct.pack(">HHIH", _ALG_KEYEDHASH, _ALG_SHA256, _ATTRIBUTES, 0) + scheme
        body = _sized(_sized(b"") + _sized(b"")) + _sized(public) + _sized(b"") + bytes(4)
        said = self._ask(number, _SESSIONS, _CREATE_PRIMARY, _OWNER + _PASSWORD + body)
        return said[:4]

    def _code(self, number: int, handle: bytes) -> bytes:
        """TPM2_HMAC (Part 3, 15.5)."""
        body = _PASSWORD + _sized(_LABEL) + struct.pack(">H", _ALG_SHA256)
        said = self._ask(number, _SESSIONS, _HMAC, handle + body)
        code = said[6:][: int.from_bytes(said[4:6], "big")]  # behind the size of all parameters
        if len(code) != SIZE:
            raise BoardSecretError(f"{self._device}: a code of {len(code)} bytes, not {SIZE}")
        return code

    def _ask(self, number: int, tag: int, command: int, body: bytes) -> bytes:
        """Send a command; what stands behind the head of the answer."""
        os.write(number, struct.pack(">HII", tag, 10 + len(body), command) + body)
        said = os.read(number, 4096)
        if len(said) < _HEAD:
            raise BoardSecretError(f"{self._device}: an answer of {len(said)} bytes")
        _, _, code = struct.unpack_from(">HII", said)
        if code:
            raise BoardSecretError(f"{self._device}: refuses command {command:#x}: {code:#x}")
        return said[_HEAD:]


_HEAD = 10
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_CREATE_PRIMARY, _HMAC, _FLUSH_CONTEXT = 0x131, 0x155, 0x165
_ALG_HMAC, _ALG_KEYEDHASH, _ALG_SHA256 = 0x0005, 0x0008, 0x000B
_OWNER = struct.pack(">I", 0x40000001)
_ATTRIBUTES = 0x2 | 0x10 | 0x20 | 0x40 | 0x400 | 0x40000
"""fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign (Part 2, 8.3)."""
_PASSWORD = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
"""A session that is a password, and that empty."""


def _sized(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content


class Nvmem:
    """A Pi's own key in its OTP, as the kernel's nvmem shows it: for root only.

    Raspberry Pi's kernel has it with `dtparam=nvmem_priv`; a driver by the name rpi-otp-private
    was offered to the kernel that everybody has. Eight rows of four bytes; zeros: never written.

    Args:
        devices: sysfs's folder.
    """

    name = "otp"

    def __init__(self, devices: Path = Path("/sys/bus/nvmem/devices")) -> None:
        self._devices = devices

    def secret(self) -> bytes | None:
        """See Source."""
        for path in sorted(self._devices.glob("*priv*/nvmem")):
            try:
                with path.open("rb", buffering=0) as file:
                    rows = file.read(SIZE)
            except OSError as e:
                raise BoardSecretError(f"{path}: {e.strerror}") from e
            if len(rows) != SIZE:
                raise BoardSecretError(f"{path}: {len(rows)} bytes, not {SIZE}")
            if rows.strip(b"\0"):
                return rows
        return None


class Mailbox:
    """The same key, asked of the firmware: Raspberry Pi's kernel alone has /dev/vcio.

    Args:
        device: of the mailbox's property channel.
        ask: exchanges a message, in place.
    """

    name = "otp"

    def __init__(
        self,
        device: Path = Path("/dev/vcio"),
        *,
        ask: Callable[[Path, bytearray], None] | None = None,
    ) -> None:
        self._device, self._ask = device, ask or _property

    def secret(self) -> bytes | None:
        """See Source."""
        value = 8 + SIZE  # first row, number of rows, the rows
        words = struct.pack("<7I", 6 * 4 + value, 0, _GET_PRIVATE_KEY, value, value, 0, SIZE // 4)
        message = bytearray(words + bytes(SIZE + 4))
        try:
            self._ask(self._device, message)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise BoardSecretError(f"{self._device}: {e.strerror}") from e
        _, code, _, _, answered = struct.unpack_from("<5I", message)
        if code != _ANSWERED:
            raise BoardSecretError(f"{self._device}: the firmware answers {code:#x}")
        if not answered & _ANSWERED:  # a board, or firmware, that does not know of such a key
            return None
        rows = bytes(message[28 : 28 + SIZE])
        return rows if rows.strip(b"\0") else None


_GET_PRIVATE_KEY = 0x00030081
_ANSWERED = 0x80000000
_PROPERTY = 0xC0086400
"""_IOWR(100, 0, char *) of a 64-bit kernel."""


def _property(device: Path, message: bytearray) -> None:
    with device.open("rb", buffering=0) as file:
        fcntl.ioctl(file, _PROPERTY, message)


SOURCES: tuple[Source, ...] = (Tpm(), Nvmem(), Mailbox())


def key(secret: bytes) -> bytes:
    """The key of the data partition: HKDF-SHA256 (RFC 5869), one block.

    The board's secret is nobody's key: other labels make other keys of it.
    """
    taken = hmac.new(b"picket", secret, hashlib.sha256).digest()
    return hmac.new(taken, _LABEL + b"\x01", hashlib.sha256).digest()
