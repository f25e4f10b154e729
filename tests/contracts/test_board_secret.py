"""Where a board's secret may be: the same each time, another on another board, never made up."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.image.board import SWTPM, File, Tpm, script

board = script("board_secret")
ROWS = bytes(range(1, 33)), bytes(range(2, 34))
Secret = Callable[[], bytes | None]
GET = 0x00030081


def firmware(rows: bytes | None) -> Callable[[Path, bytearray], None]:
    """Answers as a Pi's; None: it does not know of such a key."""

    def ask(_: Path, message: bytearray) -> None:
        size, code, tag, room, _, first, count = struct.unpack_from("<7I", message)
        assert (size, code, tag, room, first, count) == (len(message), 0, GET, 40, 0, 8)
        assert message[-4:] == bytes(4), "the end of the list of questions"
        struct.pack_into("<I", message, 4, 0x80000000)
        if rows is not None:
            struct.pack_into("<I", message, 16, 0x80000000 | 40)
            message[28:60] = rows

    return ask


class Boards:
    """Boards of one kind, numbered; `asked` is one start of one of them."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self._folder = kind, folder

    def asked(self, number: int) -> Any:
        if self.kind == "tpm":
            tpm = Tpm(self._folder / f"tpm{number}")
            with tpm.on():
                return board.Tpm(tpm.path, connect=Tpm.connect).secret()
        return self._asked(ROWS[number])

    def unset(self) -> Any:
        """A board of this kind that has none."""
        if self.kind == "tpm":
            return board.Tpm(self._folder / "none").secret()
        return self._asked(bytes(32))

    def absent(self) -> Any:
        """A board, or a kernel, without such a place."""
        if self.kind == "nvmem":
            return board.Nvmem(self._folder / "none").secret()
        if self.kind == "mailbox":
            return board.Mailbox(self._folder / "none").secret()
        if self.kind == "file":
            return File(self._folder / "none").secret()
        return self.unset()

    def _asked(self, rows: bytes) -> Any:
        if self.kind == "mailbox":
            return board.Mailbox(ask=firmware(rows)).secret()
        path = self._folder / "rpi-otp-private0/nvmem"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(rows)
        source = board.Nvmem(self._folder) if self.kind == "nvmem" else File(path)
        return source.secret()


needs_swtpm = pytest.mark.skipif(SWTPM is None, reason="swtpm is missing")


@pytest.fixture(params=["file", "nvmem", "mailbox", pytest.param("tpm", marks=needs_swtpm)])
def boards(request: pytest.FixtureRequest, tmp_path: Path) -> Boards:
    return Boards(request.param, tmp_path)


def test_a_board_says_the_same_at_every_start_and_no_other_says_it(boards: Boards) -> None:
    first = boards.asked(0)
    assert len(first) == board.SIZE
    assert boards.asked(0) == first
    assert boards.asked(1) != first
    assert boards.asked(0) == first


def test_a_board_without_one_has_none(boards: Boards) -> None:
    assert boards.unset() is None
    assert boards.absent() is None


def test_firmware_that_does_not_know_of_the_key_has_none() -> None:
    assert board.Mailbox(ask=firmware(None)).secret() is None


def test_a_place_that_is_there_and_gives_nothing_is_an_error(tmp_path: Path) -> None:
    """Taken for "none", it would be a card in the clear."""

    def fails(_: Path, message: bytearray) -> None:
        struct.pack_into("<I", message, 4, 0x80000001)

    def refuses(_: Path, _message: bytearray) -> None:
        raise PermissionError(13, "Permission denied")

    for ask, said in ((fails, "answers 0x80000001"), (refuses, "Permission denied")):
        with pytest.raises(board.BoardSecretError, match=said):
            board.Mailbox(ask=ask).secret()
    (tmp_path / "nvmem_priv0").mkdir()
    (tmp_path / "nvmem_priv0/nvmem").write_bytes(b"short")
    with pytest.raises(board.BoardSecretError, match="5 bytes, not 32"):
        board.Nvmem(tmp_path).secret()


@needs_swtpm
def test_a_tpm_that_refuses_is_an_error(tmp_path: Path) -> None:
    tpm = Tpm(tmp_path / "tpm")
    with tpm.on(), pytest.raises(board.BoardSecretError, match=r"refuses command 0x131: 0x"):
        board.Tpm(tpm.path, connect=_owned).secret()


def _owned(path: Path) -> int:
    """A TPM whose owner has a password: TPM2_HierarchyChangeAuth (Part 3, 24.8)."""
    number = Tpm.connect(path)
    body = struct.pack(">I", 0x40000001) + struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
    body += struct.pack(">H", 4) + b"mine"
    os.write(number, struct.pack(">HII", 0x8002, 10 + len(body), 0x129) + body)
    assert os.read(number, 4096)[6:10] == bytes(4)
    return number


@given(st.binary(max_size=80))
def test_whatever_a_tpm_answers_is_a_secret_or_one_error(said: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        for _ in range(3):
            theirs.send(said or b"?")
        try:
            secret = board.Tpm(Path("tpm"), connect=lambda _: ours.detach()).secret()
        except board.BoardSecretError:
            return
        assert len(secret) == board.SIZE


def test_the_key_is_rfc_5869s() -> None:
    """Against another's HKDF: `cryptography`."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    theirs = HKDF(SHA256(), 32, b"picket", b"picket: data partition, 1").derive(ROWS[0])
    assert board.key(ROWS[0]) == theirs
    assert board.key(ROWS[1]) != theirs
