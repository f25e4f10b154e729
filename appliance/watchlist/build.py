"""A list is made: subjects and their templates go in, a head to be signed and pieces come out.

Pieces are handed over one by one, so a list of any size is built in the memory of its templates
alone. The content key is the caller's, random and made for this one list: a key seals one body.
No I/O in here; watchlist/files.py writes what comes out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from appliance.errors import TemplateError
from appliance.types import Vectors
from appliance.watchlist.bundle import ColumnHeader, Header, key_commitment, unsigned
from appliance.watchlist.opening import NORM_TOLERANCE
from appliance.watchlist.pieces import Index, Layout, Sealer, encode_index

Progress = Callable[[int, int], None]
"""Told how many pieces are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an authority says of a list; see bundle.Header."""

    list_id: str
    version: int
    fleet: str
    created_utc_ms: int
    not_before_utc_ms: int
    expires_utc_ms: int
    deployment: str
    legal_basis: str
    officer: str
    target_fpir: float
    threshold_floor: float


@dataclass(frozen=True, slots=True, eq=False)
class Templates:
    """One column.

    Attributes:
        model: id of the embedder that made them.
        counts: how many rows each subject has, in the subjects' order, 0 or more.
        vectors: (n, dim) float32 of norm 1, in the same order.
    """

    model: str
    counts: Sequence[int]
    vectors: Vectors


def layout_of(
    facts: Facts, subjects: Sequence[str], columns: Mapping[str, Templates]
) -> tuple[Header, bytes]:
    """The header, its digests and key still blank, and the index.

    Raises:
        TemplateError: counts do not add up, a subject comes twice, or rows are no unit vectors.
        ListFormatError, OversizedListError: a field or the whole is outside its bound.
    """
    for name, templates in columns.items():
        _check(name, templates, len(subjects))
    if len(set(subjects)) != len(subjects):
        raise TemplateError(f"{len(subjects) - len(set(subjects))} subjects come more than once")
    index = encode_index(
        Index(tuple(subjects), tuple(tuple(map(int, c.counts)) for c in columns.values()))
    )
    header = _header(facts, subjects, columns, len(index))
    unsigned(header)
    return msgspec.structs.replace(header, pieces=Layout(header).pieces), index


def build(
    facts: Facts,
    subjects: Sequence[str],
    columns: Mapping[str, Templates],
    *,
    content_key: bytes,
    write: Callable[[bytes], object],
    progress: Progress | None = None,
) -> tuple[bytes, bytes]:
    """Build a list.

    Args:
        facts: what the authority says of it.
        subjects: opaque references, each once.
        columns: by their names, "whole" among them.
        content_key: 32 random bytes that never sealed anything.
        write: given each piece, in order.
        progress: told after each piece.

    Returns:
        The head, which nobody has signed yet, and the digests.

    Raises:
        TemplateError, ListFormatError, OversizedListError: see `layout_of`.
    """
    header, index = layout_of(facts, subjects, columns)
    sealer = Sealer(
        content_key, list_id=header.list_id, version=header.version, pieces=header.pieces
    )
    digests = []
    opened = _opened(Layout(header), index, [c.vectors for c in columns.values()])
    for piece, plain in enumerate(opened):
        sealed = sealer.seal(piece, plain)
        digests.append(hashlib.sha256(sealed).digest())
        write(sealed)
        if progress is not None:
            progress(piece + 1, header.pieces)
    joined = b"".join(digests)
    complete = msgspec.structs.replace(
        header,
        digests_sha256=hashlib.sha256(joined).digest(),
        key_sha256=key_commitment(content_key),
    )
    return unsigned(complete), joined


def _opened(layout: Layout, index: bytes, vectors: Sequence[Vectors]) -> Iterator[bytes]:
    """The pieces as they are before they are sealed."""
    for piece in range(layout.pieces):
        span = layout.span(piece)
        if span.column is None:
            yield index[span.first : span.first + span.count]
        else:
            rows = vectors[span.column][span.first : span.first + span.count]
            yield rows.astype("<f2").tobytes()


def _header(
    facts: Facts,
    subjects: Sequence[str],
    columns: Mapping[str, Templates],
    index_bytes: int,
) -> Header:
    """Of one piece, its digests and key blank: those are known when everything is sealed."""
    return Header(
        list_id=facts.list_id,
        version=facts.version,
        fleet=facts.fleet,
        created_utc_ms=facts.created_utc_ms,
        not_before_utc_ms=facts.not_before_utc_ms,
        expires_utc_ms=facts.expires_utc_ms,
        deployment=facts.deployment,
        legal_basis=facts.legal_basis,
        officer=facts.officer,
        columns=tuple(
            ColumnHeader(name, c.model, c.vectors.shape[1], len(c.vectors))
            for name, c in columns.items()
        ),
        subjects=len(subjects),
        target_fpir=facts.target_fpir,
        threshold_floor=facts.threshold_floor,
        index_bytes=index_bytes,
        pieces=1,
        digests_sha256=bytes(32),
        key_sha256=bytes(32),
    )


def _check(name: str, templates: Templates, subjects: int) -> None:
    counts, vectors = templates.counts, templates.vectors
    if len(counts) != subjects or sum(counts) != len(vectors):
        raise TemplateError(
            f"column '{name}': {len(counts)} counts that add up to {sum(counts)}:"
            f" {subjects} subjects have {len(vectors)} templates"
        )
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    # Half the tolerance is left to the rounding to float16; NaN is refused, too.
    broken = np.flatnonzero(~(np.abs(norms - 1.0) <= NORM_TOLERANCE / 2))
    if len(broken):
        raise TemplateError(
            f"column '{name}', row {broken[0]}: norm {norms[broken[0]]:.4f}, must be 1"
        )
