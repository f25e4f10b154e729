"""A stamp says what the controller's online key signed, or nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import OversizedListError, StampError, WatchlistError
from appliance.watchlist.stamp import LEASE_MAX_S, Action, Stamp, make_stamp, open_stamp
from appliance.wire import STAMP_MAX_BYTES

ONLINE = Ed25519PrivateKey.generate()
GRANT = Stamp(
    Action.GRANT,
    "cam-017",
    b"n" * 16,
    1_800_000_000_000,
    "wanted",
    3,
    b"h" * 32,
    "market-day",
    3600,
    1_800_000_060_000,
)
CLOSING = [
    Stamp(Action.WITHDRAW, "cam-017", b"n" * 16, 1, "wanted", 3, b"", "market-day"),
    Stamp(Action.WIPE, "cam-017", b"n" * 16, 1),
]


@pytest.mark.parametrize("stamp", [GRANT, *CLOSING])
def test_a_stamp_comes_back_as_it_was_signed(stamp: Stamp) -> None:
    assert open_stamp(make_stamp(stamp, ONLINE), ONLINE.public_key()) == stamp


def test_the_longest_stamp_is_within_its_bound() -> None:
    longest = msgspec.structs.replace(
        GRANT,
        node="n" * 48,
        list_id="l" * 48,
        deployment="d" * 48,
        version=2**63 - 1,
        now_utc_ms=2**63 - 1,
        until_utc_ms=2**63 - 1,
        lease_s=LEASE_MAX_S,
    )
    assert len(make_stamp(longest, ONLINE)) <= STAMP_MAX_BYTES // 2


@pytest.mark.parametrize(
    "changed",
    [
        {"node": ""},
        {"node": "two words"},
        {"nonce": b"n" * 15},
        {"now_utc_ms": -1},
        {"list_id": ""},
        {"version": 0},
        {"head_sha256": b""},
        {"head_sha256": b"h" * 33},
        {"lease_s": 0},
        {"lease_s": LEASE_MAX_S + 1},
        {"action": "open"},
    ],
)
def test_a_stamp_outside_its_bounds_is_not_signed(changed: dict[str, Any]) -> None:
    with pytest.raises(StampError, match="stamp"):
        make_stamp(msgspec.structs.replace(GRANT, **changed), ONLINE)


def test_a_withdrawal_names_the_list() -> None:
    with pytest.raises(StampError, match="must name the list"):
        make_stamp(msgspec.structs.replace(CLOSING[0], list_id=""), ONLINE)


def test_another_keys_signature_is_refused() -> None:
    stamped = make_stamp(GRANT, Ed25519PrivateKey.generate())
    with pytest.raises(StampError, match="not signed by the controller's online key"):
        open_stamp(stamped, ONLINE.public_key())


def test_what_the_online_key_signed_for_another_purpose_is_no_stamp() -> None:
    encoded = msgspec.msgpack.encode(GRANT)
    for purpose in (b"", b"picket list/1\0", b"picket hello/1\0"):
        envelope = msgspec.msgpack.encode((encoded, ONLINE.sign(purpose + encoded)))
        with pytest.raises(StampError, match="not signed"):
            open_stamp(envelope, ONLINE.public_key())


def test_what_is_signed_and_no_stamp_is_refused() -> None:
    for encoded in (b"\xc0", b"\x91" * 500, b"\x92\xa7stamp/2\xc0"):
        signature = ONLINE.sign(b"picket stamp/1\0" + encoded)
        with pytest.raises(StampError, match="not a stamp"):
            open_stamp(msgspec.msgpack.encode((encoded, signature)), ONLINE.public_key())


def test_a_stamp_beyond_its_bound_is_not_read() -> None:
    with pytest.raises(OversizedListError):
        open_stamp(bytes(STAMP_MAX_BYTES + 1), ONLINE.public_key())


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_random_bytes_are_refused(received: bytes) -> None:
    with pytest.raises(StampError):
        open_stamp(received, ONLINE.public_key())


@given(st.data())
@settings(deadline=None)
def test_mutilated_stamps_are_refused(data: st.DataObject) -> None:
    stamped = bytearray(make_stamp(GRANT, ONLINE))
    bit = data.draw(st.integers(0, 8 * len(stamped) - 1))
    stamped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WatchlistError):
        open_stamp(bytes(stamped), ONLINE.public_key())
