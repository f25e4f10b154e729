"""Hello, poll, fetch: against a door and a controller made of a few lines each."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.errors import DigestError, RollbackError, SecretMemoryError
from appliance.link.downlink import Door, Downlink
from appliance.link.simulated import SimulatedLink
from appliance.system.clock import SimulatedClock
from appliance.watchlist.trusted import TrustedWatchlist
from appliance.wire import (
    GRANT_KEY_BYTES,
    Ack,
    Answer,
    Deny,
    Fetch,
    Hello,
    Offer,
    Piece,
    Poll,
    Request,
    Welcome,
    decode_request,
    encode,
    hello_signed_part,
)

BOOT = b"b" * 16
IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OFFER = Offer(b"stamp", b"head", b"digests", b"grant")


@dataclass(frozen=True)
class Wish:
    action: str
    list_id: str
    version: int
    pieces: tuple[int, ...] = ()


@dataclass(frozen=True)
class Using:
    list_id: str
    version: int
    lease_end_ns: int


class FakeDoor:
    """Wants pieces 0, 1, 3 of red 7; remembers what it was given."""

    def __init__(self) -> None:
        self.current: Using | None = None
        self.grant_key_public = b"1" * GRANT_KEY_BYTES
        self.missing = [0, 1, 3]
        self.action = "grant"
        self.refuse: Exception | None = None
        self.refuse_piece: Exception | None = None
        self.floors: dict[str, int] = {}
        self.nonces: list[bytes] = []
        self.let_go = 0

    def raise_floors(self, floors: Iterable[tuple[str, int]]) -> None:
        self.floors.update(floors)

    def new_nonce(self, *, now_ns: int) -> bytes:
        self.nonces.append(now_ns.to_bytes(16))
        return self.nonces[-1]

    def offer(self, offer: Offer, *, now_ns: int) -> Wish:
        assert (offer, now_ns > 0) == (OFFER, True)
        if self.refuse:
            raise self.refuse
        if self.action == "wipe":
            self.current, self.grant_key_public = None, b"2" * GRANT_KEY_BYTES
        if self.action != "grant":
            self.current = None
            return Wish(self.action, "", 0)
        return Wish("grant", "red", 7, tuple(self.missing))

    def nothing_new(self) -> None:
        self.let_go += 1

    def piece(self, index: int, sealed: bytes, *, now_ns: int) -> bool:
        if self.refuse_piece:
            raise self.refuse_piece
        assert sealed == b"piece %d" % index
        self.missing.remove(index)
        if not self.missing:
            self.current = Using("red", 7, now_ns + 3_600_000_000_000)
        return not self.missing


class Rig:
    def __init__(self) -> None:
        self.door = FakeDoor()
        self.asked: list[Request] = []
        self.poll_answers: list[Answer] = []
        self.hello_answer: Answer = Welcome(1, (("red", 5),))
        self.piece_answers: list[Answer] = []
        self.link = SimulatedLink(self._answer)
        self.clock = SimulatedClock()
        self.stop = threading.Event()
        door: Door = self.door
        self.downlink = Downlink(
            self.link,
            door,
            sign=IDENTITY.sign,
            node="cam",
            boot=BOOT,
            model="m@1",
            timeout_s=1.0,
            poll_s=20.0,
            rng=random.Random(1),  # noqa: S311 - a spread
            clock=self.clock,
            stop=self.stop,
        )

    def _answer(self, question: bytes) -> bytes:
        request = decode_request(question)
        self.asked.append(request)
        match request:
            case Hello():
                return encode(self.hello_answer)
            case Poll():
                return encode(self.poll_answers.pop(0) if self.poll_answers else Ack())
            case Fetch():
                if self.piece_answers:
                    return encode(self.piece_answers.pop(0))
                return encode(Piece(request.index, b"piece %d" % request.index))
            case _:
                raise AssertionError(request)

    def steps(self, number: int) -> list[str]:
        """So many steps, after every wait that there may have been; what was asked in them."""
        before = len(self.asked)
        for _ in range(number):
            self.clock.advance(60.0)
            self.downlink.step()
        return [type(request).__name__ for request in self.asked[before:]]

    def fetching(self) -> tuple[int, int] | None:
        return self.downlink.fetching

    def last_poll(self) -> Poll:
        return next(request for request in reversed(self.asked) if isinstance(request, Poll))


def test_hello_is_signed_by_the_identity_and_brings_the_floors() -> None:
    rig = Rig()
    assert rig.steps(2) == ["Hello", "Poll"]
    hello = rig.asked[0]
    assert isinstance(hello, Hello)
    assert hello.grant_key == rig.door.grant_key_public
    signed = hello_signed_part("cam", BOOT, hello.grant_key, "m@1")
    IDENTITY.public_key().verify(hello.signature, signed)
    assert rig.door.floors == {"red": 5}


def test_an_offer_is_fetched_piece_by_piece_and_acknowledged_by_the_next_poll() -> None:
    rig = Rig()
    rig.poll_answers = [OFFER]
    assert rig.steps(2) == ["Hello", "Poll"]
    assert rig.fetching() == (0, 3)
    assert rig.steps(2) == ["Fetch", "Fetch"]
    assert rig.fetching() == (2, 3)
    assert rig.steps(2) == ["Fetch", "Poll"]
    assert rig.fetching() is None
    assert [r.index for r in rig.asked if isinstance(r, Fetch)] == [0, 1, 3]
    assert (rig.last_poll().list_id, rig.last_poll().list_version) == ("red", 7)
    assert 3000 < rig.last_poll().lease_left_s <= 3600


def test_each_poll_has_a_nonce_of_its_own() -> None:
    rig = Rig()
    rig.steps(4)
    polls = [request for request in rig.asked if isinstance(request, Poll)]
    assert [poll.nonce for poll in polls] == rig.door.nonces
    assert len(set(rig.door.nonces)) == 3


def test_a_cut_in_the_middle_resumes_with_what_is_missing() -> None:
    rig = Rig()
    rig.poll_answers = [OFFER, OFFER]
    rig.steps(3)
    rig.link.up = False
    assert rig.steps(2) == []
    rig.link.up = True
    assert rig.steps(4) == ["Poll", "Fetch", "Fetch", "Poll"]
    assert [r.index for r in rig.asked if isinstance(r, Fetch)] == [0, 1, 3]


@pytest.mark.parametrize("answer", [Deny("no such piece"), Piece(9, b"other"), Ack()])
def test_a_piece_that_does_not_come_leads_back_to_polling(answer: Answer) -> None:
    rig = Rig()
    rig.poll_answers, rig.piece_answers = [OFFER], [answer]
    assert rig.steps(4) == ["Hello", "Poll", "Fetch", "Poll"]
    assert rig.downlink.refused == ""


def test_pieces_that_all_came_and_make_no_list_do_not_hang_it() -> None:
    rig = Rig()
    rig.door.missing = [0, 1, 3, 4]
    rig.poll_answers = [OFFER]
    rig.steps(2)
    rig.door.missing.append(99)
    assert rig.steps(5) == ["Fetch", "Fetch", "Fetch", "Fetch", "Poll"]


@pytest.mark.parametrize("error", [RollbackError("older"), SecretMemoryError("no room")])
def test_a_refused_offer_is_told_with_the_reason(error: Exception) -> None:
    rig = Rig()
    rig.poll_answers, rig.door.refuse = [OFFER], error
    assert rig.steps(3) == ["Hello", "Poll", "Poll"]
    assert rig.last_poll().refused == str(error) == rig.downlink.refused
    rig.door.refuse, rig.poll_answers = None, [OFFER]
    rig.steps(2)
    assert rig.downlink.refused == ""


def test_a_refused_piece_is_told_with_the_reason() -> None:
    rig = Rig()
    rig.poll_answers, rig.door.refuse_piece = [OFFER], DigestError("piece 0: not what was signed")
    assert rig.steps(4) == ["Hello", "Poll", "Fetch", "Poll"]
    assert rig.last_poll().refused == "piece 0: not what was signed"


def test_refusing_again_and_again_is_no_tight_circle() -> None:
    rig = Rig()
    rig.poll_answers, rig.door.refuse = [OFFER] * 50, RollbackError("older")
    rig.steps(3)
    rig.stop.set()  # so that the slice of a wait is over at once
    before = len(rig.asked)
    for _ in range(50):
        rig.downlink.step()
    assert len(rig.asked) == before


def test_a_withdrawn_list_is_polled_for_no_longer() -> None:
    rig = Rig()
    rig.poll_answers = [OFFER]
    rig.steps(5)
    rig.door.action, rig.poll_answers = "withdraw", [OFFER]
    assert rig.steps(2) == ["Poll", "Poll"]
    assert (rig.last_poll().list_id, rig.last_poll().list_version) == ("", 0)


def test_a_list_that_was_withdrawn_half_way_is_let_go() -> None:
    rig = Rig()
    rig.poll_answers, rig.piece_answers = [OFFER], [Deny("this list is not meant for this node")]
    assert rig.steps(3) == ["Hello", "Poll", "Fetch"]
    assert rig.door.let_go == 0
    rig.clock.advance(60)
    assert rig.steps(1) == ["Poll"]
    assert rig.door.let_go == 1


def test_after_a_wipe_the_new_grant_key_is_told() -> None:
    rig = Rig()
    rig.door.action, rig.poll_answers = "wipe", [OFFER]
    assert rig.steps(4) == ["Hello", "Poll", "Hello", "Poll"]
    hello = rig.asked[2]
    assert isinstance(hello, Hello)
    assert hello.grant_key == b"2" * GRANT_KEY_BYTES


def test_a_controller_that_does_not_know_this_boot_is_greeted_again() -> None:
    rig = Rig()
    rig.poll_answers = [Deny("unknown boot")]
    assert rig.steps(4) == ["Hello", "Poll", "Hello", "Poll"]


def test_a_hello_that_is_refused_is_repeated() -> None:
    rig = Rig()
    rig.hello_answer = Deny("revoked")
    assert rig.steps(3) == ["Hello", "Hello", "Hello"]


def test_without_a_link_it_waits_and_asks_nothing() -> None:
    rig = Rig()
    rig.link.up = False
    rig.steps(1)
    rig.link.up = True
    rig.stop.set()
    for _ in range(20):
        rig.downlink.step()
    assert rig.asked == []


def test_the_real_door_fits() -> None:
    """A check for mypy, which reads this; and that what a poll needs is there."""
    door: type[Door] = TrustedWatchlist
    for name in ("current", "grant_key_public", "raise_floors", "new_nonce", "offer", "piece"):
        assert hasattr(door, name)
