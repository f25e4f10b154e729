"""The body of a list: an index of subjects, then columns of templates, cut into sealed pieces.

The header tells where every piece begins and how long it is, so any piece can be fetched, checked
and opened on its own: pieces of the index first (its bytes, cut), then for each column pieces of
whole rows. Rows are unit vectors of little-endian float16 and lie in the order of the subjects.

Each piece is sealed by ChaCha20-Poly1305 (a Pi 4 has no AES instructions) under the content key,
which is made anew for every build; the nonce is the piece's index and whether it is the last one,
and list, version and index are bound to it: no piece fits another place. No I/O in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from msgspec import Meta

from appliance.errors import ListFormatError, OversizedListError
from appliance.watchlist.bundle import Header
from appliance.wire import DIGESTS_MAX_BYTES, NAME_MAX_CHARS, PIECE_MAX_BYTES, Name

TAG_BYTES = 16
PLAIN_MAX_BYTES = PIECE_MAX_BYTES - TAG_BYTES
DIGEST_BYTES = 32
NUMBER_BYTES = 2
"""float16: of a unit vector it loses 1 part in 2,048 of each number at most."""
PIECES_MAX = DIGESTS_MAX_BYTES // DIGEST_BYTES
_INDEX_ENTRY_MAX_BYTES = NAME_MAX_CHARS + 2
_COUNT_MAX_BYTES = 5
_INDEX_FRAME_BYTES = 64

_encoder = msgspec.msgpack.Encoder()


class Index(msgspec.Struct, frozen=True, array_like=True, tag="index/1"):
    """Who is on the list.

    Attributes:
        subjects: opaque references, each once.
        counts: per column, in the header's order, how many rows each subject has, 0 or more.
    """

    subjects: tuple[Name, ...]
    counts: tuple[tuple[Annotated[int, Meta(ge=0, le=2**31)], ...], ...]


_indices: msgspec.msgpack.Decoder[Index] = msgspec.msgpack.Decoder(Index)


@dataclass(frozen=True, slots=True)
class Span:
    """What one piece holds.

    Attributes:
        column: place in Header.columns, None for the index.
        first: row of the column, or byte of the index, that it begins with.
        count: rows or bytes.
        nbytes: of the open piece.
    """

    column: int | None
    first: int
    count: int
    nbytes: int


class Layout:
    """Where everything is, by the header alone.

    Attributes:
        pieces: how many.

    Raises:
        ListFormatError: the header's own counts contradict each other.
        OversizedListError: more pieces than a list may have.
    """

    def __init__(self, header: Header) -> None:
        self._header = header
        if header.index_bytes > index_max_bytes(header.subjects, len(header.columns)):
            raise ListFormatError(
                f"index of {header.index_bytes} bytes for {header.subjects} subjects"
            )
        self._starts = [0, -(-header.index_bytes // PLAIN_MAX_BYTES)]
        for column in header.columns:
            rows = PLAIN_MAX_BYTES // (NUMBER_BYTES * column.dim)
            self._starts.append(self._starts[-1] - (-column.templates // rows))
        self.pieces = self._starts[-1]
        if self.pieces > PIECES_MAX:
            raise OversizedListError(f"{self.pieces} pieces: a list has at most {PIECES_MAX}")

    def of_index(self) -> range:
        """The pieces of the index."""
        return range(self._starts[1])

    def of_column(self, column: int) -> range:
        """The pieces of a column, by its place in the header."""
        return range(self._starts[column + 1], self._starts[column + 2])

    def span(self, piece: int) -> Span:
        """What a piece holds; `piece` is in range(pieces)."""
        if piece < self._starts[1]:
            first = piece * PLAIN_MAX_BYTES
            count = min(PLAIN_MAX_BYTES, self._header.index_bytes - first)
            return Span(None, first, count, count)
        place = next(i for i in range(len(self._header.columns)) if piece in self.of_column(i))
        column = self._header.columns[place]
        row_bytes = NUMBER_BYTES * column.dim
        rows = PLAIN_MAX_BYTES // row_bytes
        first = (piece - self._starts[place + 1]) * rows
        count = min(rows, column.templates - first)
        return Span(place, first, count, count * row_bytes)

    def sealed_bytes(self, piece: int) -> int:
        """Length of a piece as it travels."""
        return self.span(piece).nbytes + TAG_BYTES


class Sealer:
    """Seals and opens the pieces of one list under its content key.

    The key itself is not kept beyond the constructor: what is, is the cipher's state, which
    OpenSSL overwrites when it frees it.

    Args:
        content_key: 32 bytes.
        list_id: bound to each piece.
        version: bound to each piece.
        pieces: how many the list has.
    """

    def __init__(
        self, content_key: bytes | memoryview, *, list_id: str, version: int, pieces: int
    ) -> None:
        self._cipher = ChaCha20Poly1305(content_key)
        self._list_id, self._version, self._pieces = list_id, version, pieces

    def seal(self, piece: int, opened: bytes | memoryview) -> bytes:
        """One piece of ciphertext; each piece of a list is sealed once only under its key."""
        return self._cipher.encrypt(self._nonce(piece), opened, self._bound(piece))

    def open_into(self, piece: int, sealed: bytes, into: memoryview) -> None:
        """Open a piece straight into memory of the right length.

        Raises:
            ListFormatError: it is not this piece of this list, sealed under this key.
        """
        try:
            self._cipher.decrypt_into(self._nonce(piece), sealed, self._bound(piece), into)
        except (InvalidTag, ValueError) as e:
            raise ListFormatError(f"piece {piece} does not open with the list's key") from e

    def _nonce(self, piece: int) -> bytes:
        return piece.to_bytes(11, "big") + bytes((piece == self._pieces - 1,))

    def _bound(self, piece: int) -> bytes:
        return b"picket piece/1\0" + _encoder.encode((self._list_id, self._version, piece))


def index_max_bytes(subjects: int, columns: int) -> int:
    """The longest that an index of so many can be."""
    entry = _INDEX_ENTRY_MAX_BYTES + columns * _COUNT_MAX_BYTES
    return _INDEX_FRAME_BYTES + subjects * entry


def encode_index(index: Index) -> bytes:
    """The first part of the body."""
    return _encoder.encode(index)


def parse_index(opened: bytes | memoryview) -> Index:
    """The first part of the body, read back.

    Raises:
        ListFormatError: not an index.
    """
    try:
        return _indices.decode(opened)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        # Not e's own words: they could quote a subject.
        raise ListFormatError("not the index of a list") from e
