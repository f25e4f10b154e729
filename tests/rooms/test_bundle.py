"""A list is built, signed, written and read back piece by piece; damage is noticed and named."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import (
    DigestError,
    GrantError,
    ListFormatError,
    OversizedListError,
    TemplateError,
    WatchlistError,
)
from appliance.types import Vectors
from appliance.watchlist.build import Facts, Templates, build
from appliance.watchlist.bundle import (
    WHOLE,
    ColumnHeader,
    Header,
    key_commitment,
    parse_head,
    parse_header,
    sign,
    signers,
    unsigned,
)
from appliance.watchlist.files import (
    BundleFile,
    create,
    new_key,
    read_key,
    sign_file,
    write_key,
)
from appliance.watchlist.pieces import (
    PIECES_MAX,
    PLAIN_MAX_BYTES,
    Layout,
    Sealer,
    index_max_bytes,
    parse_index,
)
from appliance.wire import HEAD_MAX_BYTES, PIECE_MAX_BYTES

KEY = bytes(range(32))
FACTS = Facts(
    list_id="wanted",
    version=3,
    fleet="market",
    created_utc_ms=1,
    not_before_utc_ms=2,
    expires_utc_ms=3,
    deployment="market-day",
    legal_basis="Police Act 7 (2)",
    officer="insp-42",
    target_fpir=0.001,
    threshold_floor=0.3,
)
HEADER = Header(
    "wanted", 3, "market", 1, 2, 3, "day", "basis", "officer",
    (ColumnHeader(WHOLE, "m", 192, 10),), 10, 0.001, 0.3, 100, 2, bytes(32), bytes(32),
)  # fmt: skip


def unit(rows: int, dim: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    vectors /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, np.newaxis]
    return vectors


def columns(rows: int = 700, dim: int = 192) -> dict[str, Templates]:
    return {WHOLE: Templates("m", [1] * rows, unit(rows, dim))}


def subjects(count: int = 700) -> list[str]:
    return [f"subject-{i}" for i in range(count)]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "wanted.bundle"
    create(path, FACTS, subjects(), columns(), content_key=KEY)
    return path


# Building


def test_what_is_built_says_what_was_given() -> None:
    pieces: list[bytes] = []
    head, digests = build(FACTS, subjects(), columns(), content_key=KEY, write=pieces.append)
    header = parse_header(parse_head(head).header)
    assert (header.list_id, header.version, header.fleet) == ("wanted", 3, "market")
    assert (header.subjects, header.columns) == (700, (ColumnHeader(WHOLE, "m", 192, 700),))
    assert header.pieces == len(pieces) == 4  # 1 of the index, 341 rows each, 18 left
    assert digests == b"".join(hashlib.sha256(piece).digest() for piece in pieces)
    assert header.digests_sha256 == hashlib.sha256(digests).digest()
    assert header.key_sha256 == key_commitment(KEY)
    assert parse_head(head).signatures == ()


def test_no_subject_and_no_template_is_told_in_the_open() -> None:
    pieces: list[bytes] = []
    listed = columns()
    head, digests = build(FACTS, subjects(), listed, content_key=KEY, write=pieces.append)
    everything = head + digests + b"".join(pieces)
    assert b"subject-1" not in everything
    assert listed[WHOLE].vectors[3].astype("<f2").tobytes()[:16] not in everything


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda s, c: (s[:-1], c), "699 subjects have 700 templates"),
        (lambda s, c: ([*s[:-1], s[0]], c), "1 subjects come more than once"),
        (lambda s, c: (s, {WHOLE: replace(c[WHOLE], vectors=c[WHOLE].vectors * 1.01)}), "norm"),
        (lambda s, c: (s, {WHOLE: replace(c[WHOLE], vectors=c[WHOLE].vectors * np.nan)}), "norm"),
        (lambda s, c: (s, {WHOLE: replace(c[WHOLE], counts=[2] * 700)}), "add up to 1400"),
    ],
)
def test_templates_that_are_none_are_not_built(
    spoil: Callable[..., tuple[list[str], dict[str, Templates]]], why: str
) -> None:
    names, listed = spoil(subjects(), columns())
    with pytest.raises(TemplateError, match=why):
        build(FACTS, names, listed, content_key=KEY, write=lambda _: None)


@pytest.mark.parametrize(
    "changed",
    [
        {"list_id": "two words"},
        {"version": 0},
        {"expires_utc_ms": 2},
        {"legal_basis": ""},
        {"officer": "x" * 201},
        {"target_fpir": 0.0},
        {"threshold_floor": 1.1},
    ],
)
def test_facts_outside_their_bounds_are_not_built(changed: dict[str, Any]) -> None:
    with pytest.raises(ListFormatError):
        build(
            replace(FACTS, **changed), subjects(), columns(), content_key=KEY, write=lambda _: None
        )


def test_a_list_without_faces_that_nothing_hides_is_not_built() -> None:
    with pytest.raises(ListFormatError, match="one must be 'whole'"):
        build(
            FACTS,
            subjects(),
            {"lower": columns()[WHOLE]},
            content_key=KEY,
            write=lambda _: None,
        )


# Where everything is


@given(
    st.integers(1, 400_000),
    st.lists(st.tuples(st.integers(1, 2048), st.integers(1, 60_000)), min_size=1, max_size=4),
)
@settings(max_examples=100, deadline=None)
def test_pieces_cover_everything_once_and_none_is_too_long(
    index_bytes: int, shapes: list[tuple[int, int]]
) -> None:
    header = msgspec.structs.replace(
        HEADER,
        index_bytes=index_bytes,
        subjects=index_bytes,
        columns=tuple(
            ColumnHeader(f"c{i}", "m", dim, rows) for i, (dim, rows) in enumerate(shapes)
        ),
    )
    try:
        layout = Layout(header)
    except OversizedListError:
        return
    assert layout.pieces <= PIECES_MAX
    covered: dict[int | None, int] = {}
    for piece in range(layout.pieces):
        span = layout.span(piece)
        assert span.first == covered.get(span.column, 0)
        assert 1 <= span.nbytes <= PLAIN_MAX_BYTES
        assert layout.sealed_bytes(piece) <= PIECE_MAX_BYTES
        covered[span.column] = span.first + span.count
    assert covered[None] == index_bytes
    assert [covered[i] for i in range(len(shapes))] == [rows for _, rows in shapes]


@given(st.integers(1, 500), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_the_longest_index_is_within_its_bound(count: int, per_subject: int) -> None:
    vectors = unit(1, 4).repeat(count * per_subject, axis=0)
    listed = {
        name: Templates("m", [per_subject] * count, vectors) for name in (WHOLE, "lower", "eyes")
    }
    names = [f"{i:048d}" for i in range(count)]
    head, _ = build(FACTS, names, listed, content_key=KEY, write=lambda _: None)
    header = parse_header(parse_head(head).header)
    assert header.index_bytes <= index_max_bytes(count, 3)


def test_every_piece_is_sealed_for_its_own_place() -> None:
    sealers = {
        name: Sealer(KEY, list_id=list_id, version=version, pieces=pieces)
        for name, list_id, version, pieces in [
            ("own", "wanted", 3, 4),
            ("another list", "others", 3, 4),
            ("another version", "wanted", 4, 4),
            ("not the last", "wanted", 3, 5),
        ]
    }
    sealed = sealers["own"].seal(3, b"rows")
    into = memoryview(bytearray(4))
    sealers["own"].open_into(3, sealed, into)
    assert bytes(into) == b"rows"
    for name, piece in [("own", 2), *((other, 3) for other in sealers if other != "own")]:
        with pytest.raises(ListFormatError, match=f"piece {piece} does not open"):
            sealers[name].open_into(piece, sealed, into)
    with pytest.raises(ListFormatError):
        sealers["own"].open_into(3, sealed, memoryview(bytearray(5)))


# Signing


def test_each_authority_signs_once_and_only_trusted_ones_count() -> None:
    head = unsigned(HEADER)
    authorities = [Ed25519PrivateKey.generate() for _ in range(3)]
    public = [key.public_key().public_bytes_raw() for key in authorities]
    for key in (authorities[0], authorities[0], authorities[1], authorities[2]):
        head = sign(head, key)
    parsed = parse_head(head)
    assert len(parsed.signatures) == 3
    assert signers(parsed, public[:2]) == set(public[:2])
    assert parse_header(parsed.header) == HEADER


def test_a_head_full_of_signatures_takes_no_more() -> None:
    head = unsigned(HEADER)
    for _ in range(8):
        head = sign(head, Ed25519PrivateKey.generate())
    with pytest.raises(ListFormatError):
        sign(head, Ed25519PrivateKey.generate())
    assert len(head) < HEAD_MAX_BYTES


def test_the_longest_head_is_within_its_bound() -> None:
    header = msgspec.structs.replace(
        HEADER,
        legal_basis="é" * 200,
        officer="é" * 200,
        columns=tuple(
            ColumnHeader(f"{i:048d}" if i else WHOLE, "m" * 48, 2048, 10**6) for i in range(8)
        ),
    )
    head = unsigned(header)
    for _ in range(8):
        head = sign(head, Ed25519PrivateKey.generate())
    assert len(head) < HEAD_MAX_BYTES


def test_nobody_signs_what_is_no_list() -> None:
    with pytest.raises(ListFormatError):
        sign(b"\x93\xa6head/1\xc4\x01x\x90", Ed25519PrivateKey.generate())


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_random_bytes_are_a_refusal_at_most(received: bytes) -> None:
    for parse in (parse_head, parse_header, parse_index):
        with pytest.raises(WatchlistError):
            parse(received)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_mutilated_heads_are_a_refusal_at_most(data: st.DataObject) -> None:
    head = bytearray(sign(unsigned(HEADER), Ed25519PrivateKey.generate()))
    bit = data.draw(st.integers(0, 8 * len(head) - 1))
    head[bit // 8] ^= 1 << bit % 8
    try:
        parsed = parse_head(bytes(head))
        assert not signers(parsed, [s.authority for s in parsed.signatures])
        parse_header(parsed.header)
    except WatchlistError as e:
        assert "\n" not in str(e)  # noqa: PT017 - not raising is as good


@pytest.mark.parametrize(
    "hostile", [b"\x91" * 5000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b""]
)
def test_hostile_nesting_and_counts_are_refused(hostile: bytes) -> None:
    for parse in (parse_head, parse_header, parse_index):
        with pytest.raises(WatchlistError):
            parse(hostile)


# Files


def test_a_file_gives_back_each_piece_from_its_place(made: Path) -> None:
    pieces: list[bytes] = []
    head, digests = build(FACTS, subjects(), columns(), content_key=KEY, write=pieces.append)
    with BundleFile(made) as listed:
        assert (listed.head, listed.digests) == (head, digests)
        assert [listed.piece(i) for i in (3, 0, 2, 1)] == [pieces[i] for i in (3, 0, 2, 1)]
        listed.verify()
        for index in (-1, 4):
            with pytest.raises(ListFormatError, match="it has 4"):
                listed.piece(index)


def test_progress_is_told_for_each_piece(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = tmp_path / "l.bundle"
    create(
        path, FACTS, subjects(), columns(), content_key=KEY, progress=lambda *at: told.append(at)
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with BundleFile(path) as listed:
        told.clear()
        listed.verify(lambda *at: told.append(at))
    assert told[-1] == (4, 4)


def test_signing_a_file_changes_its_head_alone(made: Path) -> None:
    before = made.read_bytes()
    authorities = [Ed25519PrivateKey.generate() for _ in range(2)]
    assert [sign_file(made, key) for key in authorities] == [1, 2]
    after = made.read_bytes()
    end = 24 + HEAD_MAX_BYTES
    assert (len(after), after[end:]) == (len(before), before[end:])
    with BundleFile(made) as listed:
        listed.verify()
        public = {key.public_key().public_bytes_raw() for key in authorities}
        assert signers(parse_head(listed.head), public) == public
    assert [path.name for path in made.parent.iterdir()] == ["wanted.bundle"]


def test_files_are_for_their_owner_only(made: Path) -> None:
    write_key(made.with_suffix(".key"), KEY)
    for path in made.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_left_of_a_list_that_cannot_be_built(tmp_path: Path) -> None:
    def full(_done: int, _of: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        create(
            tmp_path / "l.bundle",
            FACTS,
            subjects(),
            columns(),
            content_key=KEY,
            progress=full,
        )
    assert list(tmp_path.iterdir()) == []


def test_damage_is_found_and_named(made: Path) -> None:
    whole = made.read_bytes()
    made.write_bytes(whole[:-1] + bytes((whole[-1] ^ 1,)))
    with BundleFile(made) as listed, pytest.raises(DigestError, match="piece 3 is damaged"):
        listed.verify()
    with pytest.raises(DigestError):
        sign_file(made, Ed25519PrivateKey.generate())
    made.write_bytes(whole[:-1])
    with BundleFile(made) as listed, pytest.raises(ListFormatError, match="it is cut off"):
        listed.verify()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda b: b[:0], "cut off"),
        (lambda b: b"x" + b[1:], "not a list"),
        (lambda b: b[:5000], "cut off"),
        (lambda b: b[:16] + b"\xff\xff\xff\xff" + b[20:], "head is damaged"),
        (lambda b: b[:20] + b"\xff\xff\xff\xff" + b[24:], "contradict"),
        (lambda b: b[:8000] + b"x" + b[8001:], "head is damaged"),
        (lambda b: b[:24] + b"\xc1" + b[25:], "not the head"),
    ],
)
def test_a_file_that_is_no_list_is_refused(
    made: Path, spoil: Callable[[bytes], bytes], why: str
) -> None:
    made.write_bytes(spoil(made.read_bytes()))
    with pytest.raises(ListFormatError, match=why):
        BundleFile(made)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ListFormatError, match="No such file"):
        BundleFile(tmp_path / "l.bundle")


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_mutilated_files_are_a_refusal_at_most(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("lists") / "l.bundle"
    create(path, FACTS, subjects(3), columns(3, 16), content_key=KEY)
    with BundleFile(path) as listed:
        head = listed.head
    whole = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        with BundleFile(path) as listed:
            listed.verify()
            # What is left is the header itself, for whose truth only a signature stands.
            assert listed.head != head
    except WatchlistError as e:
        assert str(path) in str(e) or "head" in str(e)  # noqa: PT017 - not raising is as good


# The key's file


def test_a_key_comes_back_for_its_own_list_only(made: Path) -> None:
    path = made.with_suffix(".key")
    write_key(path, KEY)
    with BundleFile(made) as listed:
        assert read_key(path, listed.header) == KEY
        write_key(path, new_key())
        with pytest.raises(GrantError, match="not the key of wanted version 3"):
            read_key(path, listed.header)
        for spoilt in (b"", b"zz" * 32, b"\xff", KEY.hex().encode() * 9):
            path.write_bytes(spoilt)
            with pytest.raises(GrantError):
                read_key(path, listed.header)
        path.unlink()
        with pytest.raises(GrantError, match="No such file"):
            read_key(path, listed.header)


def test_no_two_keys_are_the_same() -> None:
    assert len({new_key() for _ in range(100)}) == 100
