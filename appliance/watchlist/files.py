"""LIST.bundle and LIST.key: a list as two files, for the controller and whoever signs.

LIST.bundle is public to every node and holds no key; one piece is read at a time, from its place:

    16 bytes  magic
     4 bytes  length of the head, 4 bytes length of the digests (little-endian)
     8 KiB    head, then zeros: room for signatures, so that signing moves nothing
              digests
              pieces, one after the other

LIST.key is the content key as 64 hexadecimal digits, readable by its owner only. It goes to the
controller and never to a node. Both are written aside and renamed: there is no half a file.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.errors import DigestError, GrantError, ListFormatError, WatchlistError
from appliance.watchlist.build import Facts, Progress, Templates, build, layout_of
from appliance.watchlist.bundle import Header, key_commitment, parse_head, parse_header, sign
from appliance.watchlist.grant import CONTENT_KEY_BYTES
from appliance.watchlist.pieces import DIGEST_BYTES, Layout
from appliance.wire import HEAD_MAX_BYTES

BUNDLE_SUFFIX, KEY_SUFFIX = ".bundle", ".key"
MAGIC = b"picket list/1\r\n\0"
_LENGTHS = struct.Struct("<II")
_HEAD_AT = len(MAGIC) + _LENGTHS.size
_DIGESTS_AT = _HEAD_AT + HEAD_MAX_BYTES


class BundleFile:
    """A LIST.bundle, open for reading. Thread-safe.

    Args:
        path: of the file.

    Attributes:
        head: as signed so far.
        digests: of all pieces.
        header: parsed; neither its signatures nor its digests are checked by opening.

    Raises:
        ListFormatError: it cannot be read, or is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as e:
            raise ListFormatError(f"{path}: {e.strerror}") from e
        try:
            self._read_front()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def piece(self, index: int) -> bytes:
        """One piece of ciphertext.

        Raises:
            ListFormatError: no such piece, or the file ends before it.
        """
        if not 0 <= index < self.header.pieces:
            raise ListFormatError(f"{self._path}: piece {index}: it has {self.header.pieces}")
        return self._read(self._offsets[index], self._layout.sealed_bytes(index))

    def verify(self, progress: Progress | None = None) -> None:
        """Read every piece and compare its digest with the signed one.

        Raises:
            DigestError: digests or a piece are not what the head says.
            ListFormatError: the file ends before its last piece.
        """
        if hashlib.sha256(self.digests).digest() != self.header.digests_sha256:
            raise DigestError(f"{self._path}: the digests are not those of the head")
        for index in range(self.header.pieces):
            wanted = self.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
            if hashlib.sha256(self.piece(index)).digest() != wanted:
                raise DigestError(f"{self._path}: piece {index} is damaged")
            if progress is not None:
                progress(index + 1, self.header.pieces)

    def _read_front(self) -> None:
        front = self._read(0, _HEAD_AT)
        if not front.startswith(MAGIC):
            raise ListFormatError(f"{self._path}: not a list made by `picketctl list build`")
        head_bytes, digest_bytes = _LENGTHS.unpack_from(front, len(MAGIC))
        room = self._read(_HEAD_AT, HEAD_MAX_BYTES)
        self.head = room[:head_bytes]
        if head_bytes > HEAD_MAX_BYTES or any(room[head_bytes:]):
            raise ListFormatError(f"{self._path}: its head is damaged")
        try:
            self.header: Header = parse_header(parse_head(self.head).header)
            self._layout = Layout(self.header)
        except WatchlistError as e:
            raise ListFormatError(f"{self._path}: {e}") from e
        if (
            self.header.pieces != self._layout.pieces
            or digest_bytes != DIGEST_BYTES * self._layout.pieces
        ):
            raise ListFormatError(f"{self._path}: its counts contradict each other")
        self.digests = self._read(_DIGESTS_AT, digest_bytes)
        at, self._offsets = _DIGESTS_AT + digest_bytes, []
        for index in range(self.header.pieces):
            self._offsets.append(at)
            at += self._layout.sealed_bytes(index)

    def _read(self, at: int, nbytes: int) -> bytes:
        read = os.pread(self._file.fileno(), nbytes, at)
        if len(read) != nbytes:
            raise ListFormatError(f"{self._path}: ends at byte {at + len(read)}: it is cut off")
        return read


def create(
    path: Path,
    facts: Facts,
    subjects: Sequence[str],
    columns: Mapping[str, Templates],
    *,
    content_key: bytes,
    progress: Progress | None = None,
) -> None:
    """Build a list into a file, unsigned.

    Args:
        path: of LIST.bundle; replaced if it is there.
        facts: what the authority says of the list.
        subjects: opaque references.
        columns: templates by the name of their column.
        content_key: 32 random bytes that never sealed anything; see `new_key`.
        progress: told after each piece.

    Raises:
        TemplateError, ListFormatError, OversizedListError: see build.build.
        OSError: the file cannot be written.
    """
    header, _ = layout_of(facts, subjects, columns)

    def write(file: BinaryIO) -> None:
        file.seek(_DIGESTS_AT + DIGEST_BYTES * header.pieces)
        head, digests = build(
            facts,
            subjects,
            columns,
            content_key=content_key,
            write=file.write,
            progress=progress,
        )
        file.seek(0)
        file.write(_front(head, digests))

    _replace(path, write)


def sign_file(path: Path, authority: Ed25519PrivateKey, *, progress: Progress | None = None) -> int:
    """Add an authority's signature to a list; every piece is checked against its digest before.

    Args:
        path: of LIST.bundle; replaced.
        authority: whose signature.
        progress: told after each piece that was checked.

    Returns:
        How many have signed it now.

    Raises:
        ListFormatError, DigestError: it is no list, or damaged.
        OSError: the file cannot be written.
    """
    with BundleFile(path) as bundle:
        bundle.verify(progress)
        head = sign(bundle.head, authority)
        digests = bundle.digests

    def write(file: BinaryIO) -> None:
        with path.open("rb") as before:
            shutil.copyfileobj(before, file, 2**20)
        file.seek(0)
        file.write(_front(head, digests))

    _replace(path, write)
    return len(parse_head(head).signatures)


def new_key() -> bytes:
    """A content key for one list: 32 random bytes."""
    return secrets.token_bytes(CONTENT_KEY_BYTES)


def write_key(path: Path, content_key: bytes) -> None:
    """Keep a content key in a file of its own, for its owner only (mode 0600).

    Raises:
        OSError: the file cannot be written.
    """
    _replace(path, lambda file: file.write(content_key.hex().encode() + b"\n"))


def read_key(path: Path, header: Header) -> bytes:
    """The content key of a list.

    Raises:
        GrantError: unreadable, no key, or another list's.
    """
    try:
        with path.open("rb") as file:
            content_key = bytes.fromhex(file.read(4 * CONTENT_KEY_BYTES).decode("ascii").strip())
    except OSError as e:
        raise GrantError(f"{path}: {e.strerror}") from e
    except ValueError as e:
        raise GrantError(f"{path}: not a content key: 64 hexadecimal digits are") from e
    if key_commitment(content_key) != header.key_sha256:
        raise GrantError(f"{path}: not the key of {header.list_id} version {header.version}")
    return content_key


def _front(head: bytes, digests: bytes) -> bytes:
    lengths = _LENGTHS.pack(len(head), len(digests))
    return MAGIC + lengths + head.ljust(HEAD_MAX_BYTES, b"\0") + digests


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file for its owner only, whole or not at all; on the disk when this returns."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(aside, "xb", opener=_owner_only) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
