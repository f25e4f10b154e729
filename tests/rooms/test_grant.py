"""A grant opens for one boot of one node on its own terms, or not at all."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import GrantError, OversizedListError, WatchlistError
from appliance.watchlist import grant
from appliance.watchlist.grant import GrantKey, Terms, _overwrite, seal_grant
from appliance.wire import GRANT_KEY_BYTES, GRANT_MAX_BYTES

KEY = bytes(range(32))
TERMS = Terms("cam-017", b"b" * 16, b"n" * 16, b"h" * 32, "market-day", 3600)
OWNER = GrantKey()
GRANT = seal_grant(KEY, to=OWNER.public, terms=TERMS)


class Memory:
    def __init__(self, nbytes: int) -> None:
        self.view = memoryview(bytearray(nbytes))

    def wipe(self) -> None:
        self.view[:] = bytes(len(self.view))


def test_the_owner_of_the_key_opens_it() -> None:
    assert bytes(OWNER.open_grant(GRANT, TERMS, Memory).view) == KEY


def test_sizes_are_what_the_wire_allows() -> None:
    assert len(OWNER.public) == GRANT_KEY_BYTES
    assert len(GRANT) == 1168 <= GRANT_MAX_BYTES


def test_two_grants_of_one_key_are_different() -> None:
    assert seal_grant(KEY, to=OWNER.public, terms=TERMS) != GRANT


def test_another_boots_key_does_not_open_it() -> None:
    with pytest.raises(GrantError, match="not for this boot"):
        GrantKey().open_grant(GRANT, TERMS, Memory)


@pytest.mark.parametrize(
    "changed",
    [
        {"node": "cam-018"},
        {"boot": b"c" * 16},
        {"nonce": b"m" * 16},
        {"head_sha256": b"i" * 32},
        {"deployment": "market-night"},
        {"lease_s": 3601},
    ],
)
def test_other_terms_do_not_open_it(changed: dict[str, Any]) -> None:
    with pytest.raises(GrantError):
        OWNER.open_grant(GRANT, msgspec.structs.replace(TERMS, **changed), Memory)


@pytest.mark.parametrize(
    ("key", "to"),
    [(KEY[:-1], OWNER.public), (KEY, OWNER.public[:-1]), (KEY, bytes(GRANT_KEY_BYTES)), (KEY, b"")],
)
def test_nothing_is_sealed_to_what_is_no_key(key: bytes, to: bytes) -> None:
    with pytest.raises(GrantError):
        seal_grant(key, to=to, terms=TERMS)


@given(st.binary(min_size=GRANT_KEY_BYTES, max_size=GRANT_KEY_BYTES))
@settings(max_examples=50, deadline=None)
def test_a_strangers_key_is_refused_or_sealed_to(to: bytes) -> None:
    try:
        seal_grant(KEY, to=to, terms=TERMS)
    except WatchlistError as e:
        assert "\n" not in str(e)  # noqa: PT017 - not raising is as good


@given(st.binary(max_size=GRANT_MAX_BYTES))
@settings(deadline=None)
def test_random_bytes_are_refused(received: bytes) -> None:
    with pytest.raises(GrantError):
        OWNER.open_grant(received, TERMS, Memory)


@given(st.integers(0, 8 * len(GRANT) - 1))
@settings(deadline=None)
def test_mutilated_grants_are_refused(bit: int) -> None:
    mutilated = bytearray(GRANT)
    mutilated[bit // 8] ^= 1 << bit % 8
    with pytest.raises(GrantError):
        OWNER.open_grant(bytes(mutilated), TERMS, Memory)


def test_a_grant_beyond_its_bound_is_not_read() -> None:
    with pytest.raises(OversizedListError):
        OWNER.open_grant(bytes(GRANT_MAX_BYTES + 1), TERMS, Memory)


def test_a_key_of_another_length_is_refused() -> None:
    for length in (0, 1, 16, 33):
        with pytest.raises(GrantError, match=f"content key of {length} bytes"):
            seal_grant(bytes(length), to=OWNER.public, terms=TERMS)


def test_the_librarys_copy_of_the_key_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    given = bytes(bytearray(KEY))

    class Suite:
        def decrypt(self, *_: object, **__: object) -> bytes:
            return given

    monkeypatch.setattr(grant, "_SUITE", Suite())
    assert bytes(OWNER.open_grant(GRANT, TERMS, Memory).view) == KEY
    assert not any(given)


def test_a_bytes_object_can_be_overwritten() -> None:
    # What grant.py rests on: how CPython lays out a bytes object.
    for length in (2, 32, 1000):
        secret = bytes(bytearray(range(1, 9))) * length
        _overwrite(secret)
        assert not any(secret)
        assert len(secret) == 8 * length
    for shared in (b"", b"x"):
        _overwrite(shared)
    assert shared == b"x"
