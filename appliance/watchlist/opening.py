"""A list on its way into memory: pieces of ciphertext in, in any order, open columns out.

What is opened goes straight into secret memory: the index into one buffer, rows through a scratch
of one piece into their column. Memory for all of it is taken at the beginning, so a list that
does not fit is refused before anything of it was fetched. Who may open what is trusted.py's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np

from appliance.errors import DigestError, TemplateError
from appliance.watchlist.bundle import Header
from appliance.watchlist.columns import Column
from appliance.watchlist.memory import Allocate, SecretMemory
from appliance.watchlist.pieces import (
    DIGEST_BYTES,
    PLAIN_MAX_BYTES,
    Index,
    Layout,
    Sealer,
    Span,
    parse_index,
)

NORM_TOLERANCE = 2e-3
"""A unit vector in float16 is off by 5e-4 at most; whatever is farther off is no template."""


class Opening:
    """One list, piece by piece.

    Args:
        header: signed and checked.
        digests: SHA-256 of each piece; checked against the header.
        sealer: holds the content key.
        columns: names of those that are wanted; pieces of the others are never asked for.
        allocate: makes secret memory.

    Raises:
        SecretMemoryError: the list does not fit; nothing is kept.
    """

    def __init__(
        self,
        *,
        header: Header,
        digests: bytes,
        sealer: Sealer,
        columns: Collection[str],
        allocate: Allocate,
    ) -> None:
        self._header, self._digests, self._sealer = header, digests, sealer
        self._layout = Layout(header)
        self._memories: list[SecretMemory] = []
        self._columns: dict[int, Column] = {}
        self._missing = set(self._layout.of_index())
        try:
            self._index = self._allocate(header.index_bytes, allocate)
            self._opened = self._allocate(PLAIN_MAX_BYTES, allocate)
            for place, column in enumerate(header.columns):
                if column.name in columns:
                    self._columns[place] = Column(
                        templates=column.templates, dim=column.dim, allocate=allocate
                    )
                    self._missing.update(self._layout.of_column(place))
        except BaseException:
            self.wipe()
            raise

    @property
    def missing(self) -> tuple[int, ...]:
        """Pieces that are still to come, in order."""
        return tuple(sorted(self._missing))

    def add(self, piece: int, sealed: bytes) -> None:
        """Check one piece and open it into its place; one that is there already is ignored.

        Raises:
            DigestError: no such piece, or not the one that was signed.
            TemplateError: rows that are no unit vectors.
        """
        if not 0 <= piece < self._header.pieces:
            raise DigestError(f"piece {piece}: the list has {self._header.pieces}")
        if piece not in self._missing:
            return
        wanted = self._digests[piece * DIGEST_BYTES : (piece + 1) * DIGEST_BYTES]
        length = self._layout.sealed_bytes(piece)
        # The length first: no more is hashed than the list can hold.
        if len(sealed) != length or hashlib.sha256(sealed).digest() != wanted:
            raise DigestError(
                f"piece {piece} of {len(sealed)} bytes: not the {length} bytes that were signed"
            )
        span = self._layout.span(piece)
        if span.column is None:
            into = self._index.view[span.first : span.first + span.nbytes]
            self._sealer.open_into(piece, sealed, into)
        else:
            self._sealer.open_into(piece, sealed, self._opened.view[: span.nbytes])
            self._take_rows(piece, span, span.column)
        self._missing.remove(piece)

    def finish(self) -> tuple[tuple[str, ...], dict[str, Column]]:
        """The subjects and the columns by name; no piece may be missing.

        Raises:
            ListFormatError: what opened is no index.
            TemplateError: subjects and rows are not as the header counts them.
        """
        index = parse_index(self._index.view)
        self._check(index)
        for place, column in self._columns.items():
            column.belong(index.counts[place])
        columns = {self._header.columns[place].name: c for place, c in self._columns.items()}
        self._columns = {}  # from here on they are the list's
        self.wipe()
        return index.subjects, columns

    def wipe(self) -> None:
        """Overwrite all that was opened and not finished."""
        for column in self._columns.values():
            column.wipe()
        for memory in self._memories:
            memory.wipe()
        self._columns, self._memories = {}, []

    def _allocate(self, nbytes: int, allocate: Allocate) -> SecretMemory:
        memory = allocate(nbytes)
        self._memories.append(memory)
        return memory

    def _take_rows(self, piece: int, span: Span, place: int) -> None:
        """From float16 in the scratch to float32 of norm 1 in their place."""
        dim = self._header.columns[place].dim
        narrow = np.frombuffer(self._opened.view[: span.nbytes], "<f2").reshape(-1, dim)
        wide = self._columns[place].rows[span.first : span.first + span.count]
        np.copyto(wide, narrow)
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        # Written so that a norm that is no number (NaN) is refused.
        if not (np.abs(norms - 1.0) <= NORM_TOLERANCE).all():
            raise TemplateError(f"piece {piece}: rows that are no unit vectors")
        np.divide(wide, norms[:, np.newaxis], out=wide)

    def _check(self, index: Index) -> None:
        header = self._header
        if len(index.subjects) != header.subjects or len(set(index.subjects)) != header.subjects:
            raise TemplateError(
                f"{len(set(index.subjects))} different subjects in the index:"
                f" the header counts {header.subjects}"
            )
        if len(index.counts) != len(header.columns):
            raise TemplateError(
                f"{len(index.counts)} columns in the index: the header has {len(header.columns)}"
            )
        for column, counts in zip(header.columns, index.counts, strict=True):
            if len(counts) != header.subjects or sum(counts) != column.templates:
                raise TemplateError(
                    f"column '{column.name}': {sum(counts)} templates in the index:"
                    f" the header counts {column.templates}"
                )
