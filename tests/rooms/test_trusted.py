"""The door to the place of the watchlist: who gets in, in which order of checks, and for how long.

Named after the attacks of The Update Framework (rollback, freeze, mix and match, ...), then those
of our own: another node, fleet, model or boot, and a clock that nobody can trust.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import (
    DigestError,
    ExpiredError,
    GrantError,
    ListFormatError,
    MixedListError,
    NotYetValidError,
    OversizedListError,
    RollbackError,
    SecretMemoryError,
    SignatureError,
    StaleStampError,
    StampError,
    TemplateError,
    ThresholdError,
    WatchlistError,
    WrongDeploymentError,
    WrongFleetError,
    WrongModelError,
    WrongNodeError,
)
from appliance.types import FalseMatch, Vectors
from appliance.watchlist import bundle
from appliance.watchlist.admission import Model
from appliance.watchlist.build import Facts, Templates, build
from appliance.watchlist.bundle import WHOLE, Header, parse_head, parse_header, sign, unsigned
from appliance.watchlist.grant import GrantKey, Terms, seal_grant
from appliance.watchlist.match import NOBODY
from appliance.watchlist.pieces import Index, Layout, Sealer, encode_index
from appliance.watchlist.stamp import Action, Stamp, make_stamp
from appliance.watchlist.trusted import TrustedWatchlist, Wanted
from appliance.wire import (
    DIGESTS_MAX_BYTES,
    GRANT_MAX_BYTES,
    HEAD_MAX_BYTES,
    PIECE_MAX_BYTES,
    STAMP_MAX_BYTES,
    Offer,
)

S = 1_000_000_000
NOW_MS = 1_800_000_000_000
NODE, BOOT, FLEET, MODEL, DIM = "cam-017", b"b" * 16, "market", "embedder@0123456789ab", 2048
TABLE = FalseMatch((-1.0, 0.0, 0.3), (1.0, 0.5, 1e-4), 0.3, 1e-4, 40.0, 1000, 10**7, "made up")
"""Rows of 2,048 numbers: 31 of them fill a piece, so small lists have several."""


class Memory:
    """Secret memory that remembers what it was: a test may look at it after the wipe."""

    def __init__(self, nbytes: int) -> None:
        self.view = memoryview(bytearray(nbytes))
        self.wiped = False

    def wipe(self) -> None:
        self.view[:] = bytes(len(self.view))
        self.wiped = True


def unit(rows: int, *, seed: int = 0, dim: int = DIM) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    vectors /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, np.newaxis]
    return vectors


@dataclass(frozen=True)
class Made:
    """A list as its makers have it."""

    head: bytes
    digests: bytes
    pieces: list[bytes]
    key: bytes

    @property
    def header(self) -> Header:
        return parse_header(parse_head(self.head).header)

    @property
    def head_sha256(self) -> bytes:
        return hashlib.sha256(self.head).digest()


ONLINE = Ed25519PrivateKey.generate()
AUTHORITIES = [Ed25519PrivateKey.generate() for _ in range(2)]
PUBLIC = [key.public_key().public_bytes_raw() for key in AUTHORITIES]
VECTORS = unit(100)
FACTS = Facts(
    list_id="wanted",
    version=3,
    fleet=FLEET,
    created_utc_ms=NOW_MS - 1000,
    not_before_utc_ms=NOW_MS - 1000,
    expires_utc_ms=NOW_MS + 86_400_000,
    deployment="market-day",
    legal_basis="Police Act 7 (2)",
    officer="insp-42",
    target_fpir=0.001,
    threshold_floor=0.3,
)


def made(
    *,
    authorities: list[Ed25519PrivateKey] = AUTHORITIES,
    columns: dict[str, Templates] | None = None,
    seed: int = 0,
    **facts: Any,
) -> Made:
    pieces: list[bytes] = []
    key = hashlib.sha256(repr((seed, facts)).encode()).digest()
    if columns is None:
        columns = {WHOLE: Templates(MODEL, [2] * 50, VECTORS)}
    subjects = [f"subject-{i}" for i in range(len(columns[WHOLE].counts))]
    head, digests = build(
        replace(FACTS, **facts), subjects, columns, content_key=key, write=pieces.append
    )
    for authority in authorities:
        head = sign(head, authority)
    return Made(head, digests, pieces, key)


LIST = made()


@dataclass
class Node:
    """A watch service's door, its memory, and its time."""

    boot: bytes = BOOT
    models: dict[str, Model] = field(default_factory=lambda: {WHOLE: Model(MODEL, DIM, TABLE)})
    now_ns: int = 5 * S
    memories: list[Memory] = field(default_factory=list)
    memory_max_bytes: int = 2**30

    def __post_init__(self) -> None:
        self.door = TrustedWatchlist(
            node=NODE,
            boot=self.boot,
            fleet=FLEET,
            authorities=PUBLIC,
            signatures=2,
            online_key=ONLINE.public_key().public_bytes_raw(),
            models=self.models,
            allocate=self.allocate,
            memory_max_bytes=self.memory_max_bytes,
        )
        self.nonce = b""

    def allocate(self, nbytes: int) -> Memory:
        self.memories.append(Memory(nbytes))
        return self.memories[-1]

    def poll(self) -> bytes:
        self.nonce = self.door.new_nonce(now_ns=self.now_ns)
        return self.nonce

    def offer(self, offer: Offer) -> Wanted:
        return self.door.offer(offer, now_ns=self.now_ns)

    def fetch(self, wanted: Wanted, pieces: list[bytes]) -> bool:
        return [self.door.piece(i, pieces[i], now_ns=self.now_ns) for i in wanted.pieces][-1]

    def take(self, listed: Made, **answer: Any) -> None:
        """Poll, and take what is answered into use."""
        self.poll()
        assert self.fetch(self.offer(answered(self, listed, **answer)), listed.pieces)


def answered(
    node: Node,
    listed: Made,
    /,
    *,
    action: Action = Action.GRANT,
    grant_key: bytes | None = None,
    key: bytes | None = None,
    terms: Callable[[Terms], Terms] = lambda terms: terms,
    online: Ed25519PrivateKey = ONLINE,
    **stamped: Any,
) -> Offer:
    """What an honest controller answers to the node's last poll, but for what is named."""
    header = listed.header
    stamp = Stamp(
        action,
        NODE,
        node.nonce,
        NOW_MS,
        header.list_id,
        header.version,
        listed.head_sha256,
        header.deployment,
        lease_s=3600,
    )
    stamp = msgspec.structs.replace(stamp, **stamped)
    bound = Terms(NODE, node.boot, node.nonce, stamp.head_sha256, stamp.deployment, stamp.lease_s)
    return Offer(
        stamp=make_stamp(stamp, online),
        head=listed.head,
        digests=listed.digests,
        grant=seal_grant(
            key or listed.key, to=grant_key or node.door.grant_key_public, terms=terms(bound)
        ),
    )


def ordered(node: Node, action: Action, list_id: str = "wanted", /, **stamped: Any) -> Offer:
    """A stamp that closes, as it comes."""
    stamp = Stamp(action, NODE, node.nonce, NOW_MS, list_id, 3 if list_id else 0)
    return Offer(make_stamp(msgspec.structs.replace(stamp, **stamped), ONLINE), b"", b"", b"")


@pytest.fixture
def node() -> Node:
    return Node()


# What is meant to happen


def test_a_signed_and_granted_list_comes_into_use(node: Node) -> None:
    node.poll()
    wanted = node.offer(answered(node, LIST))
    assert wanted == Wanted(Action.GRANT, "wanted", 3, tuple(range(len(LIST.pieces))))
    assert len(LIST.pieces) == 5
    assert node.door.in_use == ("", 0)
    assert node.fetch(wanted, LIST.pieces)
    current = node.door.current
    assert current is not None
    assert node.door.in_use == ("wanted", 3)
    assert (current.deployment, current.model) == ("market-day", MODEL)
    assert len(current.subjects) == 50
    assert current.lease_left_s(node.now_ns) == 3600
    assert current.nearest(VECTORS[41]).subject == "subject-20"
    assert current.nearest(VECTORS[41]).similarity == pytest.approx(1.0, abs=1e-5)
    assert 0.3 < current.threshold < 0.6
    assert current.false_alert_rate(current.threshold) == pytest.approx(0.001)
    assert node.door.floors == {"wanted": 3}


def test_pieces_come_in_any_order_and_twice(node: Node) -> None:
    node.poll()
    wanted = node.offer(answered(node, LIST))
    for index in reversed(wanted.pieces[1:]):
        assert not node.door.piece(index, LIST.pieces[index], now_ns=node.now_ns)
        assert not node.door.piece(index, b"not looked at", now_ns=node.now_ns)
    assert node.door.piece(0, LIST.pieces[0], now_ns=node.now_ns)


def test_the_same_version_again_renews_the_lease_and_fetches_nothing(node: Node) -> None:
    node.take(LIST)
    before = node.door.current
    node.now_ns += 3000 * S
    node.poll()
    assert node.offer(answered(node, LIST)).pieces == ()
    after = node.door.current
    assert before is not None
    assert after is not None
    assert after.lease_left_s(node.now_ns) == 3600
    assert after.nearest(VECTORS[0]) == before.nearest(VECTORS[0])


def test_a_newer_version_takes_the_place_of_the_older_which_is_overwritten(node: Node) -> None:
    node.take(LIST)
    before, used = node.door.current, list(node.memories)
    node.take(made(version=4))
    assert node.door.in_use == ("wanted", 4)
    assert all(memory.wiped and not any(memory.view) for memory in used)
    assert before is not None
    assert before.nearest(VECTORS[0]) == NOBODY


def test_a_cut_link_goes_on_where_it_was_cut(node: Node) -> None:
    node.poll()
    wanted = node.offer(answered(node, LIST))
    for index in wanted.pieces[:3]:
        node.door.piece(index, LIST.pieces[index], now_ns=node.now_ns)
    node.now_ns += 60 * S
    node.poll()
    again = node.offer(answered(node, LIST))
    assert again.pieces == wanted.pieces[3:]
    assert node.fetch(again, LIST.pieces)
    current = node.door.current
    assert current is not None
    assert current.lease_left_s(node.now_ns) == 3600


def test_a_half_fetched_list_is_overwritten_when_another_comes(node: Node) -> None:
    node.poll()
    wanted = node.offer(answered(node, LIST))
    for index in wanted.pieces[:3]:
        node.door.piece(index, LIST.pieces[index], now_ns=node.now_ns)
    used = list(node.memories)
    assert any(any(memory.view) for memory in used)
    node.take(made(version=4))
    assert all(memory.wiped and not any(memory.view) for memory in used)


def test_a_half_fetched_list_is_overwritten_when_none_is_on_offer_any_more(node: Node) -> None:
    node.take(made(version=2))
    before = len(node.memories)
    node.poll()
    wanted = node.offer(answered(node, LIST))
    for index in wanted.pieces[:3]:
        node.door.piece(index, LIST.pieces[index], now_ns=node.now_ns)
    assert any(any(memory.view) for memory in node.memories[before:])
    node.poll()
    node.door.nothing_new()
    assert all(memory.wiped and not any(memory.view) for memory in node.memories[before:])
    assert node.door.in_use == ("wanted", 2)
    with pytest.raises(ExpiredError):
        node.door.piece(3, LIST.pieces[3], now_ns=node.now_ns)


def test_a_withdrawn_list_is_overwritten(node: Node) -> None:
    node.take(LIST)
    node.poll()
    assert node.offer(ordered(node, Action.WITHDRAW)).action is Action.WITHDRAW
    assert node.door.current is None
    assert not any(any(memory.view) for memory in node.memories)


def test_withdrawing_another_list_changes_nothing(node: Node) -> None:
    node.take(LIST)
    node.poll()
    node.offer(ordered(node, Action.WITHDRAW, "another"))
    assert node.door.in_use == ("wanted", 3)


def test_a_half_fetched_list_is_withdrawn_too(node: Node) -> None:
    node.poll()
    wanted = node.offer(answered(node, LIST))
    node.poll()
    node.offer(ordered(node, Action.WITHDRAW))
    with pytest.raises(ExpiredError, match="no list is being opened"):
        node.fetch(wanted, LIST.pieces)


def test_a_wipe_overwrites_everything_and_what_was_granted_before_opens_no_more(
    node: Node,
) -> None:
    node.take(LIST)
    old_key = node.door.grant_key_public
    node.poll()
    assert node.offer(ordered(node, Action.WIPE, "")).action is Action.WIPE
    assert node.door.current is None
    assert not any(any(memory.view) for memory in node.memories)
    assert node.door.grant_key_public != old_key
    node.poll()
    with pytest.raises(GrantError):
        node.offer(answered(node, LIST, grant_key=old_key))


def test_columns_that_this_node_cannot_search_are_not_fetched() -> None:
    columns = {
        "lower": Templates("another", [1] * 50, unit(50, seed=1)),
        WHOLE: Templates(MODEL, [2] * 50, VECTORS),
    }
    listed = made(columns=columns)
    node = Node()
    node.poll()
    wanted = node.offer(answered(node, listed))
    assert len(wanted.pieces) == 5 < len(listed.pieces)
    assert node.fetch(wanted, listed.pieces)
    current = node.door.current
    assert current is not None
    assert set(current.columns) == {WHOLE}
    assert current.nearest(VECTORS[41]).subject == "subject-20"


def test_each_column_is_given_the_whole_rate_and_a_part_of_it_where_they_share() -> None:
    columns = {
        WHOLE: Templates(MODEL, [2] * 50, VECTORS),
        "lower": Templates("masked", [1, 0] * 25, unit(25, seed=1)),
    }
    both = Node(models={WHOLE: Model(MODEL, DIM, TABLE), "lower": Model("masked", DIM, TABLE)})
    both.take(made(columns=columns))
    current = both.door.current
    assert current is not None
    rates = [current.false_alert_rate(s.threshold, c) for c, s in current.scales.items()]
    assert rates == pytest.approx([0.001, 0.001])
    half = current.threshold_in("lower", 0.5)
    assert current.false_alert_rate(half, "lower") == pytest.approx(0.0005)
    assert current.threshold_in(WHOLE, 1.0) == current.threshold
    assert current.nearest(unit(25, seed=1)[3], "lower").subject == "subject-6"


def test_hidden_faces_are_left_out_where_this_node_has_another_model_for_them() -> None:
    columns = {
        WHOLE: Templates(MODEL, [2] * 50, VECTORS),
        "lower": Templates("older", [1, 0] * 25, unit(25, seed=1)),
    }
    newer = Node(models={WHOLE: Model(MODEL, DIM, TABLE), "lower": Model("newer", DIM, TABLE)})
    newer.take(made(columns=columns))
    current = newer.door.current
    assert current is not None
    assert set(current.columns) == {WHOLE}


def test_a_column_that_cannot_be_served_at_the_rate_does_not_keep_the_list_out() -> None:
    blunt = replace(TABLE, tail_slope=0.001)
    columns = {
        WHOLE: Templates(MODEL, [2] * 50, VECTORS),
        "lower": Templates("masked", [1, 0] * 25, unit(25, seed=1)),
    }
    node = Node(models={WHOLE: Model(MODEL, DIM, TABLE), "lower": Model("masked", DIM, blunt)})
    node.take(made(columns=columns))
    current = node.door.current
    assert current is not None
    assert set(current.columns) == {WHOLE}


# Rollback


def test_rollback_to_an_older_version_is_refused_and_the_list_in_use_stays(node: Node) -> None:
    node.take(LIST)
    node.poll()
    with pytest.raises(RollbackError, match="version 2: 3 was accepted before"):
        node.offer(answered(node, made(version=2)))
    assert node.door.in_use == ("wanted", 3)


def test_rollback_across_a_reboot_is_refused_by_the_floor_that_the_link_kept(node: Node) -> None:
    node.take(LIST)
    rebooted = Node(boot=b"c" * 16)
    rebooted.door.raise_floors(node.door.floors.items())
    rebooted.door.raise_floors([("wanted", 1)])
    rebooted.poll()
    with pytest.raises(RollbackError):
        rebooted.offer(answered(rebooted, made(version=2)))
    rebooted.take(LIST)
    assert rebooted.door.in_use == ("wanted", 3)


def test_floors_of_a_link_service_that_lies_shut_the_door_and_fill_no_memory(
    node: Node,
) -> None:
    node.take(LIST)
    node.door.raise_floors((f"list-{i}", 9) for i in range(10_000))
    assert len(node.door.floors) == 1024
    node.door.raise_floors([("wanted", 2**62)])
    node.poll()
    with pytest.raises(RollbackError):
        node.offer(answered(node, made(version=4)))


def test_rollback_with_the_floor_lost_needs_a_stamp_that_nobody_gives() -> None:
    # Whoever holds the link can offer the old list, but the stamp names the current one.
    node = Node(boot=b"c" * 16)
    node.poll()
    honest, old = answered(node, made(version=4)), made(version=2)
    with pytest.raises(MixedListError):
        node.offer(Offer(honest.stamp, old.head, old.digests, honest.grant))


def test_another_list_of_the_version_in_use_is_refused(node: Node) -> None:
    node.take(LIST)
    node.poll()
    with pytest.raises(RollbackError, match="another list of this version"):
        node.offer(answered(node, made(officer="insp-43")))


def test_one_more_signature_makes_no_other_list(node: Node) -> None:
    node.take(LIST)
    third = Ed25519PrivateKey.generate()
    node.poll()
    assert node.offer(answered(node, replace(LIST, head=sign(LIST.head, third)))).pieces == ()


_VERSIONS = {version: made(version=version) for version in range(1, 6)}


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=12))
@settings(max_examples=30, deadline=None)
def test_no_sequence_of_offers_makes_the_version_go_down(
    offers: list[tuple[int, bool]],
) -> None:
    node, highest = Node(), 0
    for version, whole in offers:
        listed = _VERSIONS[version]
        node.poll()
        try:
            wanted = node.offer(answered(node, listed))
        except RollbackError:
            assert version < highest
            continue
        assert version >= highest
        if wanted.pieces and whole:
            node.fetch(wanted, listed.pieces)
            highest = version
        assert node.door.in_use[1] == highest
        assert node.door.floors.get("wanted", 0) == highest


# Freeze


def test_freeze_an_old_stamp_is_refused(node: Node) -> None:
    node.poll()
    recorded = answered(node, LIST)
    assert node.fetch(node.offer(recorded), LIST.pieces)
    with pytest.raises(StaleStampError):  # the same poll is not answered twice
        node.offer(recorded)
    node.poll()
    with pytest.raises(StaleStampError):
        node.offer(recorded)


def test_freeze_an_answer_held_back_is_refused(node: Node) -> None:
    node.poll()
    held_back = answered(node, LIST)
    node.now_ns += 121 * S
    with pytest.raises(StaleStampError):
        node.offer(held_back)


def test_freeze_without_stamps_the_lease_ends_and_everything_is_overwritten(node: Node) -> None:
    node.take(LIST)
    current = node.door.current
    node.now_ns += 3600 * S - 1
    assert not node.door.tick(now_ns=node.now_ns)
    assert node.door.current is current
    node.now_ns += 1
    assert node.door.tick(now_ns=node.now_ns)
    assert node.door.current is None
    assert node.door.in_use == ("", 0)
    assert not any(any(memory.view) for memory in node.memories)
    assert not node.door.tick(now_ns=node.now_ns)


# Mix and match


def test_mix_and_match_a_stamp_for_one_list_brings_in_no_other(node: Node) -> None:
    other = made(list_id="others")
    node.poll()
    offer = answered(node, LIST)
    with pytest.raises(MixedListError):
        node.offer(Offer(offer.stamp, other.head, other.digests, offer.grant))


@pytest.mark.parametrize("stamped", [{"list_id": "others"}, {"version": 4}])
def test_mix_and_match_within_the_stamp_is_refused(node: Node, stamped: dict[str, Any]) -> None:
    node.poll()
    with pytest.raises(MixedListError):
        node.offer(answered(node, LIST, **stamped))


def test_mix_and_match_with_another_head_of_the_same_list_is_refused(node: Node) -> None:
    node.poll()
    with pytest.raises(MixedListError, match="another head"):
        node.offer(answered(node, LIST, head_sha256=made(officer="insp-43").head_sha256))


def test_mix_and_match_with_another_deployment_is_refused(node: Node) -> None:
    node.poll()
    with pytest.raises(WrongDeploymentError, match=r"'market-day'.*'another'"):
        node.offer(answered(node, LIST, deployment="another"))


def test_mix_and_match_of_another_lists_key_is_refused(node: Node) -> None:
    node.poll()
    with pytest.raises(GrantError, match="another list's key"):
        node.offer(answered(node, LIST, key=made(version=4).key))


def test_mix_and_match_of_another_lists_digests_is_refused(node: Node) -> None:
    node.poll()
    offer = answered(node, LIST)
    other = made(version=4)
    with pytest.raises(DigestError, match="not those that were signed"):
        node.offer(msgspec.structs.replace(offer, digests=other.digests))
    node.poll()
    with pytest.raises(DigestError, match="5 pieces have 160"):
        node.offer(msgspec.structs.replace(answered(node, LIST), digests=other.digests + bytes(32)))


def test_mix_and_match_of_pieces_is_refused_and_what_there_is_stays(node: Node) -> None:
    node.poll()
    wanted = node.offer(answered(node, LIST))
    for index, piece in [(1, LIST.pieces[2]), (2, made(version=4).pieces[2]), (4, b"x")]:
        with pytest.raises(DigestError, match=f"piece {index}"):
            node.door.piece(index, piece, now_ns=node.now_ns)
    assert node.fetch(wanted, LIST.pieces)


@pytest.mark.parametrize("index", [-1, 5, 2**63])
def test_a_piece_that_the_list_does_not_have_is_refused(node: Node, index: int) -> None:
    node.poll()
    node.offer(answered(node, LIST))
    with pytest.raises(DigestError, match="the list has 5"):
        node.door.piece(index, LIST.pieces[0], now_ns=node.now_ns)


def test_a_stamp_that_closes_comes_alone_and_one_that_grants_does_not(node: Node) -> None:
    node.take(LIST)
    node.poll()
    with pytest.raises(MixedListError):
        node.offer(answered(node, LIST, action=Action.WIPE))
    node.poll()
    with pytest.raises(MixedListError):
        node.offer(Offer(answered(node, LIST).stamp, b"", b"", b""))
    assert node.door.in_use == ("wanted", 3)


# Fast-forward


def test_fast_forward_a_refused_list_does_not_raise_the_floor(node: Node) -> None:
    node.take(LIST)
    for forward in (
        made(version=2**62, authorities=AUTHORITIES[:1]),
        made(version=2**62, fleet="another"),
        made(version=2**62, columns={WHOLE: Templates("another", [2] * 50, VECTORS)}),
    ):
        node.poll()
        with pytest.raises(WatchlistError):
            node.offer(answered(node, forward))
    assert node.door.floors == {"wanted": 3}
    node.take(made(version=4))


def test_fast_forward_a_list_that_was_not_fetched_does_not_raise_the_floor(node: Node) -> None:
    node.poll()
    node.offer(answered(node, made(version=2**62)))
    assert node.door.floors == {}
    node.take(LIST)


# Endless data


@pytest.mark.parametrize(
    ("part", "bound"),
    [
        ("stamp", STAMP_MAX_BYTES),
        ("head", HEAD_MAX_BYTES),
        ("digests", DIGESTS_MAX_BYTES),
        ("grant", GRANT_MAX_BYTES),
    ],
)
def test_endless_data_is_refused_by_its_length(node: Node, part: str, bound: int) -> None:
    node.poll()
    offer = answered(node, LIST)
    with pytest.raises(OversizedListError):
        node.offer(msgspec.structs.replace(offer, **{part: bytes(bound + 1)}))
    assert node.memories == []


def test_endless_data_in_a_piece_is_refused_unread(node: Node) -> None:
    node.poll()
    node.offer(answered(node, LIST))
    with pytest.raises(DigestError, match=f"piece 0 of {PIECE_MAX_BYTES + 1} bytes"):
        node.door.piece(0, bytes(PIECE_MAX_BYTES + 1), now_ns=node.now_ns)


def forged(change: Callable[[Header], Header], listed: Made = LIST) -> Made:
    """A header changed by those who may sign it."""
    encoded = msgspec.msgpack.encode(change(listed.header))
    head = msgspec.msgpack.encode(bundle.Head(encoded, ()))
    for authority in AUTHORITIES:
        public = authority.public_key().public_bytes_raw()
        signed = bundle.Signed(public, authority.sign(b"picket list/1\0" + encoded))
        parsed = msgspec.msgpack.decode(head, type=bundle.Head)
        head = msgspec.msgpack.encode(bundle.Head(encoded, (*parsed.signatures, signed)))
    return replace(listed, head=head)


def column(**changes: Any) -> Callable[[Header], Header]:
    def change(header: Header) -> Header:
        changed = msgspec.structs.replace(header.columns[0], **changes)
        return msgspec.structs.replace(header, columns=(changed,))

    return change


def counted(header: Header) -> Header:
    """With the number of pieces that its counts make."""
    return msgspec.structs.replace(header, pieces=Layout(header).pieces)


def test_a_list_that_does_not_fit_into_memory_is_refused_before_any_is_taken() -> None:
    node = Node(memory_max_bytes=100 * DIM * 4 - 1)
    node.poll()
    offer = answered(node, LIST)
    with pytest.raises(OversizedListError, match="819200 bytes of open templates: at most 819199"):
        node.offer(offer)
    assert node.memories == []


def test_more_pieces_than_digests_could_hold_are_refused(node: Node) -> None:
    node.poll()
    endless = forged(column(templates=1_000_000))
    with pytest.raises(OversizedListError, match="a list has at most 2048"):
        node.offer(answered(node, endless))


# Wrong node, fleet, model


def test_a_stamp_for_another_node_is_refused(node: Node) -> None:
    node.poll()
    with pytest.raises(WrongNodeError, match="stamped for node 'cam-018': this is 'cam-017'"):
        node.offer(answered(node, LIST, node="cam-018"))


def test_a_list_for_another_fleet_is_refused(node: Node) -> None:
    node.poll()
    with pytest.raises(WrongFleetError, match="for fleet 'another'"):
        node.offer(answered(node, made(fleet="another")))


def test_templates_of_another_model_are_refused(node: Node) -> None:
    node.poll()
    another = made(columns={WHOLE: Templates("another", [2] * 50, VECTORS)})
    with pytest.raises(WrongModelError, match=f"made by another: this node has {MODEL}"):
        node.offer(answered(node, another))


def test_templates_of_another_length_are_refused(node: Node) -> None:
    node.poll()
    shorter = made(columns={WHOLE: Templates(MODEL, [1] * 9, unit(9, dim=128))})
    with pytest.raises(TemplateError, match="of 128 numbers"):
        node.offer(answered(node, shorter))


# Replayed grants


@pytest.mark.parametrize(
    "changed",
    [
        {"node": "cam-018"},
        {"boot": b"c" * 16},
        {"nonce": b"n" * 16},
        {"head_sha256": bytes(32)},
        {"deployment": "another"},
        {"lease_s": 3601},
    ],
)
def test_a_grant_opens_for_its_own_terms_only(node: Node, changed: dict[str, Any]) -> None:
    node.poll()
    with pytest.raises(GrantError):
        node.offer(
            answered(node, LIST, terms=lambda terms: msgspec.structs.replace(terms, **changed))
        )


def test_a_grant_replayed_into_a_later_poll_is_refused(node: Node) -> None:
    node.poll()
    recorded = answered(node, LIST)
    node.poll()
    offer = answered(node, LIST)
    with pytest.raises(GrantError):
        node.offer(msgspec.structs.replace(offer, grant=recorded.grant))


def test_a_grant_to_another_boots_key_is_refused(node: Node) -> None:
    node.poll()
    with pytest.raises(GrantError):
        node.offer(answered(node, LIST, grant_key=GrantKey().public))


# Keys in the wrong hands


@pytest.mark.parametrize("how", ["one", "one twice", "one and a stranger", "none", "strangers"])
def test_key_compromise_below_the_threshold_signs_no_list(node: Node, how: str) -> None:
    strangers = [Ed25519PrivateKey.generate() for _ in range(2)]
    signers = {
        "one": AUTHORITIES[:1],
        "one twice": AUTHORITIES[:1],
        "one and a stranger": [AUTHORITIES[0], strangers[0]],
        "none": [],
        "strangers": strangers,
    }[how]
    listed = made(authorities=signers)
    if how == "one twice":
        head = parse_head(listed.head)
        listed = replace(
            listed, head=msgspec.msgpack.encode(bundle.Head(head.header, head.signatures * 2))
        )
    node.poll()
    with pytest.raises(SignatureError, match="2 must have signed"):
        node.offer(answered(node, listed))


def test_a_signature_moved_to_another_header_counts_for_nothing(node: Node) -> None:
    signatures = parse_head(LIST.head).signatures
    other = parse_head(made(version=9).head)
    head = msgspec.msgpack.encode(bundle.Head(other.header, signatures))
    node.poll()
    with pytest.raises(SignatureError, match="signed by 0 of 2"):
        node.offer(answered(node, replace(LIST, head=head)))


def test_the_authorities_keys_alone_bring_in_no_list(node: Node) -> None:
    node.poll()
    with pytest.raises(StampError, match="online key"):
        node.offer(answered(node, LIST, online=AUTHORITIES[0]))


def test_without_the_online_key_nothing_is_wiped(node: Node) -> None:
    node.take(LIST)
    node.poll()
    stamp = Stamp(Action.WIPE, NODE, node.nonce, NOW_MS)
    with pytest.raises(StampError):
        node.offer(Offer(make_stamp(stamp, AUTHORITIES[0]), b"", b"", b""))
    assert node.door.in_use == ("wanted", 3)


# Leases, validity, clocks


def test_a_lease_runs_out_while_pieces_are_fetched(node: Node) -> None:
    node.poll()
    wanted = node.offer(answered(node, LIST, lease_s=10))
    node.door.piece(0, LIST.pieces[0], now_ns=node.now_ns)
    node.now_ns += 10 * S
    with pytest.raises(ExpiredError):
        node.fetch(wanted, LIST.pieces)
    assert not any(any(memory.view) for memory in node.memories)


def test_the_lists_end_comes_before_its_leases(node: Node) -> None:
    node.take(made(expires_utc_ms=NOW_MS + 60_000))
    current = node.door.current
    assert current is not None
    assert current.lease_left_s(node.now_ns) == 60


def test_the_deployments_end_comes_before_its_leases(node: Node) -> None:
    node.take(LIST, until_utc_ms=NOW_MS + 30_000)
    current = node.door.current
    assert current is not None
    assert current.lease_left_s(node.now_ns) == 30


def test_a_list_is_not_opened_before_its_time_nor_after(node: Node) -> None:
    node.poll()
    with pytest.raises(NotYetValidError):
        node.offer(answered(node, LIST, now_utc_ms=NOW_MS - 1001))
    node.poll()
    with pytest.raises(ExpiredError):
        node.offer(answered(node, LIST, now_utc_ms=NOW_MS + 86_400_000))
    node.poll()
    with pytest.raises(ExpiredError):
        node.offer(answered(node, LIST, until_utc_ms=NOW_MS))


def test_clock_set_back_brings_no_expired_list_back(node: Node) -> None:
    short = made(expires_utc_ms=NOW_MS + 60_000)
    node.take(short)
    node.now_ns += 61 * S
    assert node.door.tick(now_ns=node.now_ns)
    node.poll()
    with pytest.raises(ExpiredError):  # the controller's clock was set back, our own goes on
        node.offer(answered(node, short, now_utc_ms=NOW_MS))


def test_clock_set_back_lengthens_no_lease(node: Node) -> None:
    short = made(expires_utc_ms=NOW_MS + 60_000)
    node.take(short)
    node.now_ns += 50 * S
    node.poll()
    node.offer(answered(node, short, now_utc_ms=NOW_MS))
    current = node.door.current
    assert current is not None
    assert current.lease_left_s(node.now_ns) == 10


@pytest.mark.parametrize("boot_ns", [0, 5 * S, 2**62])
def test_clock_unknown_needs_none(boot_ns: int) -> None:
    # No wall clock goes in anywhere: what a node knows of the time is the stamp's.
    node = Node(now_ns=boot_ns)
    node.take(LIST)
    assert node.door.in_use == ("wanted", 3)


# Signed, and still no list


def test_a_list_that_cannot_be_served_at_its_rate_is_refused_before_it_is_fetched(
    node: Node,
) -> None:
    node.poll()
    with pytest.raises(ThresholdError):
        node.offer(answered(node, made(target_fpir=1e-15)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (column(name="lower"), "must be 'whole'"),
        (lambda h: msgspec.structs.replace(h, columns=h.columns * 2), "must differ"),
        (lambda h: msgspec.structs.replace(h, expires_utc_ms=0), "never"),
        (lambda h: msgspec.structs.replace(h, pieces=6), "its counts make 5"),
        (lambda h: msgspec.structs.replace(h, index_bytes=10_000_000), "index of 10000000 bytes"),
        (lambda h: msgspec.structs.replace(h, version=0), "not the header"),
        (lambda h: msgspec.structs.replace(h, target_fpir=float("nan")), "not the header"),
        (column(dim=0), "not the header"),
    ],
)
def test_a_signed_header_that_contradicts_itself_is_refused(
    node: Node, change: Callable[[Header], Header], why: str
) -> None:
    node.poll()
    listed = forged(change)
    header = LIST.header  # what the stamp names does not matter: it does not come so far
    stamp = Stamp(Action.GRANT, NODE, node.nonce, NOW_MS, header.list_id, 3, bytes(32), "d", 60)
    with pytest.raises(ListFormatError, match=why):
        node.offer(Offer(make_stamp(stamp, ONLINE), listed.head, listed.digests, b"x"))


def resealed(index: Index, rows: Vectors) -> Made:
    """A list whose makers signed a body that its header does not count."""
    key, encoded = b"k" * 32, encode_index(index)
    header = msgspec.structs.replace(LIST.header, index_bytes=len(encoded), subjects=2)
    header = column(templates=len(rows), dim=DIM)(header)
    header = msgspec.structs.replace(header, pieces=2, key_sha256=bundle.key_commitment(key))
    sealer = Sealer(key, list_id=header.list_id, version=header.version, pieces=2)
    pieces = [sealer.seal(0, encoded), sealer.seal(1, rows.astype("<f2").tobytes())]
    digests = b"".join(hashlib.sha256(piece).digest() for piece in pieces)
    header = msgspec.structs.replace(header, digests_sha256=hashlib.sha256(digests).digest())
    return forged(lambda _: header, Made(unsigned(header), digests, pieces, key))


HALF = unit(3) / 2
BROKEN = unit(3)
BROKEN[1, 5] = np.nan


@pytest.mark.parametrize(
    ("index", "rows", "error"),
    [
        (Index(("a", "b"), ((1, 2),)), HALF, TemplateError),
        (Index(("a", "b"), ((1, 2),)), BROKEN, TemplateError),
        (Index(("a", "b"), ((1, 1),)), unit(3), TemplateError),
        (Index(("a", "a"), ((1, 2),)), unit(3), TemplateError),
        (Index(("a",), ((3,),)), unit(3), TemplateError),
        (Index(("a", "b"), ((1, 2), (1, 2))), unit(3), TemplateError),
        (Index(("a", "b"), ((3,),)), unit(3), TemplateError),
        (Index(("a b", "c"), ((1, 2),)), unit(3), ListFormatError),
    ],
)
def test_a_body_that_is_not_as_the_header_counts_is_refused_and_overwritten(
    node: Node, index: Index, rows: Vectors, error: type[WatchlistError]
) -> None:
    node.take(LIST)
    listed = resealed(index, rows)
    listed = forged(lambda header: msgspec.structs.replace(header, version=4), listed)
    # Bound to its version: seal it again under the one that the header has now.
    sealer = Sealer(listed.key, list_id="wanted", version=4, pieces=2)
    pieces = [sealer.seal(0, encode_index(index)), sealer.seal(1, rows.astype("<f2").tobytes())]
    digests = b"".join(hashlib.sha256(piece).digest() for piece in pieces)
    listed = forged(
        lambda header: msgspec.structs.replace(
            header, digests_sha256=hashlib.sha256(digests).digest()
        ),
        replace(listed, pieces=pieces, digests=digests),
    )
    used = len(node.memories)
    node.poll()
    with pytest.raises(error):
        node.fetch(node.offer(answered(node, listed)), listed.pieces)
    assert not any(any(memory.view) for memory in node.memories[used:])
    assert node.door.in_use == ("wanted", 3)


def test_a_piece_signed_but_sealed_for_another_place_is_refused_and_all_is_overwritten(
    node: Node,
) -> None:
    swapped = [*LIST.pieces[:1], LIST.pieces[2], LIST.pieces[1], *LIST.pieces[3:]]
    digests = b"".join(hashlib.sha256(piece).digest() for piece in swapped)
    sha256 = hashlib.sha256(digests).digest()
    listed = forged(lambda header: msgspec.structs.replace(header, digests_sha256=sha256))
    listed = replace(listed, pieces=swapped, digests=digests)
    node.poll()
    with pytest.raises(ListFormatError, match="piece 1 does not open"):
        node.fetch(node.offer(answered(node, listed)), listed.pieces)
    assert not any(any(memory.view) for memory in node.memories)


def test_without_memory_for_it_nothing_of_a_list_stays() -> None:
    node = Node()
    node.poll()
    offer = answered(node, LIST)
    honest = node.allocate

    def scarce(nbytes: int) -> Memory:
        if nbytes == 100 * DIM * 4:
            raise SecretMemoryError("full")
        return honest(nbytes)

    node.door._allocate = scarce
    with pytest.raises(OversizedListError, match="does not fit here: full"):
        node.offer(offer)
    assert len(node.memories) == 3
    assert all(memory.wiped for memory in node.memories)


# The order of the checks


def _mends(node: Node) -> Iterator[tuple[type[WatchlistError], Offer]]:
    """Offers in which everything is wrong, then everything but the first, and so on."""
    bad: dict[str, Any] = {"fleet": "another", "version": 2, "expires_utc_ms": NOW_MS}
    bad["columns"] = {WHOLE: Templates("another", [2] * 50, VECTORS)}
    bad["target_fpir"] = 1e-15
    stamped: dict[str, Any] = {"node": "cam-018", "nonce": b"n" * 16, "version": 9}
    stamped |= {"deployment": "another", "key": b"k" * 32, "online": AUTHORITIES[0]}
    authorities = AUTHORITIES[:1]
    digests = b"d" * 32

    def offer(**changes: Any) -> Offer:
        listed = made(authorities=authorities, **bad)
        node.poll()
        whole = msgspec.structs.replace(answered(node, listed, **stamped), digests=digests)
        return msgspec.structs.replace(whole, **changes)

    yield OversizedListError, offer(digests=bytes(DIGESTS_MAX_BYTES + 1))
    yield OversizedListError, offer(head=bytes(HEAD_MAX_BYTES + 1))
    yield SignatureError, offer()
    authorities = AUTHORITIES
    yield ListFormatError, offer(head=forged(column(dim=0)).head)
    yield WrongFleetError, offer()
    del bad["fleet"]
    yield OversizedListError, offer(stamp=bytes(STAMP_MAX_BYTES + 1))
    yield StampError, offer()
    del stamped["online"]
    yield WrongNodeError, offer()
    del stamped["node"]
    yield StaleStampError, offer()
    del stamped["nonce"]
    yield MixedListError, offer()
    del stamped["version"]
    yield WrongDeploymentError, offer()
    del stamped["deployment"]
    yield RollbackError, offer()
    bad["version"] = 4
    yield ExpiredError, offer()
    del bad["expires_utc_ms"]
    yield WrongModelError, offer()
    del bad["columns"]
    yield OversizedListError, offer(grant=bytes(GRANT_MAX_BYTES + 1))
    yield GrantError, offer()
    del stamped["key"]
    yield DigestError, offer()
    digests = made(**bad).digests
    yield ThresholdError, offer()


def test_of_many_faults_the_first_in_the_order_is_named(node: Node) -> None:
    node.take(made(version=3))
    for error, offer in _mends(node):
        with pytest.raises(WatchlistError) as refused:
            node.offer(offer)
        assert type(refused.value) is error
    assert node.door.in_use == ("wanted", 3)
    open_now = [memory for memory in node.memories if not memory.wiped]
    assert [len(memory.view) for memory in open_now] == [100 * DIM * 4]


def test_every_refusal_fits_one_line(node: Node) -> None:
    for _, offer in _mends(node):
        with pytest.raises(WatchlistError) as refused:
            node.offer(offer)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 200


# Hostile bytes


@given(st.sampled_from(["stamp", "head", "digests", "grant"]), st.data())
@settings(max_examples=300, deadline=None)
def test_mutilated_offers_are_refused_and_nothing_else(part: str, data: st.DataObject) -> None:
    node = _HOSTED
    node.poll()
    offer = answered(node, LIST)
    whole = bytearray(getattr(offer, part))
    how = data.draw(st.sampled_from(["flip", "cut", "longer", "random"]))
    if how == "flip":
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        whole[bit // 8] ^= 1 << bit % 8
    elif how == "cut":
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    elif how == "longer":
        whole += data.draw(st.binary(min_size=1, max_size=50))
    else:
        whole[:] = data.draw(st.binary(max_size=300))
    with pytest.raises(WatchlistError):
        node.offer(msgspec.structs.replace(offer, **{part: bytes(whole)}))
    assert node.door.in_use == ("", 0)


_HOSTED = Node()


@given(st.integers(0, 4), st.data())
@settings(max_examples=100, deadline=None)
def test_mutilated_pieces_are_refused_and_nothing_else(index: int, data: st.DataObject) -> None:
    node = _FETCHING
    piece = bytearray(LIST.pieces[index])
    bit = data.draw(st.integers(0, 8 * len(piece) - 1))
    piece[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DigestError):
        node.door.piece(index, bytes(piece), now_ns=node.now_ns)


_FETCHING = Node()
_FETCHING.poll()
_FETCHING.offer(answered(_FETCHING, LIST))


# A stolen card


def test_nothing_that_is_stored_or_recorded_opens_a_template_without_the_key_in_ram(
    node: Node,
) -> None:
    """Head, digests, pieces, stamp, grant, and the node's own keys: everything but RAM."""
    node.poll()
    offer = answered(node, LIST)
    identity, tls = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    stolen = b"".join(
        (
            offer.stamp,
            offer.head,
            offer.digests,
            offer.grant,
            node.door.grant_key_public,
            node.nonce,
            BOOT,
            identity.private_bytes_raw(),
            tls.private_bytes_raw(),
            *PUBLIC,
        )
    )
    shortest = min(LIST.pieces, key=len)
    index = LIST.pieces.index(shortest)
    into = memoryview(bytearray(len(shortest) - 16))
    for at in range(len(stolen) - 31):
        sealer = Sealer(stolen[at : at + 32], list_id="wanted", version=3, pieces=5)
        with pytest.raises(ListFormatError):
            sealer.open_into(index, shortest, into)
    # Another boot of the same node, with all of its stored keys, is another stranger.
    rebooted = Node(boot=BOOT)
    rebooted.door._poll = (node.nonce, rebooted.now_ns)
    with pytest.raises(GrantError):
        rebooted.offer(offer)
    # And the key in RAM does open it: the test would notice if nothing could.
    assert node.fetch(node.offer(offer), LIST.pieces)
