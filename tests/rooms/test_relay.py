"""What the link service answers: without a socket, against a controller made of a function."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.alerts.outbox import MemoryOutbox
from appliance.link.cache import PieceCache
from appliance.link.floors import FLOORS_MAX, Floors
from appliance.link.relay import Relay
from appliance.link.simulated import SimulatedLink
from appliance.wire import (
    GRANT_KEY_BYTES,
    PIECE_MAX_BYTES,
    Ack,
    Answer,
    Deny,
    Fetch,
    Health,
    Hello,
    Offer,
    Outcome,
    Piece,
    Poll,
    Pull,
    Report,
    Request,
    Row,
    Show,
    Upgrade,
    Welcome,
    decode_request,
    encode,
)
from tests.builders import a_health

BOOT = b"b" * 16
HELLO = Hello("cam", BOOT, bytes(GRANT_KEY_BYTES), "m@1", bytes(64))
HEALTH = a_health(boot=BOOT, outbox=2)
PIECES = (b"first piece" * 9, b"second piece", b"third" * 100)
OFFER = Offer(b"stamp", b"head of red 7", b"".join(hashlib.sha256(p).digest() for p in PIECES), b"")


def a_poll(list_id: str = "", version: int = 0) -> Poll:
    return Poll("cam", BOOT, b"n" * 16, list_id, version, "", 0, 1000)


class Controller:
    """Answers by kind of question; remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[type[Request], Answer] = {
            Hello: Welcome(123),
            Poll: OFFER,
            Health: Ack(),
        }
        self.asked: list[Request] = []

    def __call__(self, question: bytes) -> bytes:
        request = decode_request(question)
        self.asked.append(request)
        if isinstance(request, Fetch):
            return encode(Piece(request.index, PIECES[request.index]))
        return encode(self.answers[type(request)])

    def asked_kinds(self) -> list[str]:
        return [type(request).__name__ for request in self.asked]


class Rig:
    def __init__(self, folder: Path, *, capacity: int = 10) -> None:
        self.folder = folder
        self.controller = Controller()
        self.link = SimulatedLink(self.controller)
        self.outbox = MemoryOutbox(capacity)
        self.heard: list[int] = []
        self.answers = threading.Semaphore(0)
        self.restart()

    def restart(self) -> None:
        self.floors = Floors(self.folder / "floors.json")
        self.relay = Relay(
            node="cam",
            outbox=self.outbox,
            upstream=self.link,
            pieces=PieceCache(self.folder / "pieces"),
            floors=self.floors,
            name_of=lambda head: ("red", int(head[-1:])) if head.startswith(b"head") else None,
            answered=self.answers.release,
            heard=self.heard.append,
            rss_mib=lambda: 17.0,
            timeout_s=1.0,
        )

    def ask(self, request: Request) -> Answer:
        """As the link service does."""
        read = self.relay.read(encode(request))
        if isinstance(read, Deny):
            return read
        return self.relay.at_once(read) or self.relay.forward(read)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_report_is_answered_when_it_is_kept_with_or_without_a_controller(rig: Rig) -> None:
    rig.link.up = False
    answer = rig.ask(Report("cam", (Row(BOOT, 1, b"x"), Row(BOOT, 2, b"y"))))
    assert answer == Ack(durable=False)  # this rig's outbox is in memory, and it says so
    assert rig.outbox.peek(9) == (Row(BOOT, 1, b"x"), Row(BOOT, 2, b"y"))
    assert rig.controller.asked == []


def test_a_full_outbox_is_said_and_counted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, capacity=1)
    rig.ask(Report("cam", (Row(BOOT, 1, b"x"),)))
    answer = rig.ask(Report("cam", (Row(BOOT, 2, b"y"),)))
    assert isinstance(answer, Deny)
    assert "holds 1" in answer.reason
    rig.ask(HEALTH)
    told = rig.controller.asked[-1]
    assert isinstance(told, Health)
    assert (told.outbox, told.outbox_refused, told.outbox_durable) == (3, 1, False)
    assert told.link_rss_mib == 17.0


@pytest.mark.parametrize("request_", [HELLO, a_poll(), Fetch("cam", "red", 7, 0), HEALTH])
def test_without_a_controller_the_watch_is_told_so(rig: Rig, request_: Request) -> None:
    rig.link.up = False
    answer = rig.ask(request_)
    assert isinstance(answer, Deny)
    assert answer.reason.startswith("controller unreachable")
    assert not rig.answers.acquire(blocking=False)


def test_the_controllers_no_is_passed_on_word_for_word(rig: Rig) -> None:
    rig.controller.answers[Poll] = Deny("unknown boot")
    assert rig.ask(a_poll()) == Deny("unknown boot")


def test_what_an_earlier_start_of_the_watch_service_asked_is_not_passed_on(rig: Rig) -> None:
    again = msgspec.structs.replace(HELLO, boot=b"c" * 16)
    assert rig.relay.read(encode(HELLO)) == HELLO
    assert rig.relay.read(encode(again)) == again
    for late in (HELLO, a_poll()):
        assert isinstance(rig.relay.forward(late), Deny)
    assert rig.relay.forward(again) == Welcome(123)
    assert rig.controller.asked == [again]


def test_an_answer_that_makes_no_sense_is_not_passed_on(rig: Rig) -> None:
    rig.controller.answers[Hello] = OFFER
    answer = rig.ask(HELLO)
    assert isinstance(answer, Deny)
    assert "a Hello was answered by a Offer" in answer.reason


def test_bytes_that_are_no_answer_are_not_passed_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.link._answer = lambda _: b"\xc1 garbage"
    answer = rig.ask(HELLO)
    assert isinstance(answer, Deny)
    assert "not a message" in answer.reason


def test_each_piece_crosses_the_network_once(rig: Rig) -> None:
    assert rig.ask(a_poll()) == OFFER
    for _ in range(2):
        for index, sealed in enumerate(PIECES):
            assert rig.ask(Fetch("cam", "red", 7, index)) == Piece(index, sealed)
    assert rig.controller.asked_kinds() == ["Poll", "Fetch", "Fetch", "Fetch"]


def test_pieces_outlive_the_link_service(rig: Rig) -> None:
    rig.ask(a_poll())
    rig.ask(Fetch("cam", "red", 7, 0))
    rig.restart()
    rig.ask(a_poll())
    assert rig.ask(Fetch("cam", "red", 7, 0)) == Piece(0, PIECES[0])
    assert rig.controller.asked_kinds() == ["Poll", "Fetch", "Poll"]


def test_a_piece_that_turned_bad_on_the_card_is_fetched_anew(rig: Rig) -> None:
    rig.ask(a_poll())
    rig.ask(Fetch("cam", "red", 7, 1))
    kept = rig.folder / "pieces" / hashlib.sha256(PIECES[1]).hexdigest()
    kept.write_bytes(b"\x00" + kept.read_bytes()[1:])
    assert rig.ask(Fetch("cam", "red", 7, 1)) == Piece(1, PIECES[1])
    assert rig.controller.asked_kinds() == ["Poll", "Fetch", "Fetch"]
    assert kept.read_bytes() == PIECES[1]


def test_a_piece_of_the_wrong_bytes_is_relayed_but_not_kept(rig: Rig) -> None:
    rig.controller.answers[Poll] = Offer(b"s", b"head of red 7", bytes(96), b"")
    rig.ask(a_poll())
    assert rig.ask(Fetch("cam", "red", 7, 0)) == Piece(0, PIECES[0])
    assert list((rig.folder / "pieces").iterdir()) == []


def test_pieces_of_another_version_are_not_mixed_up_and_old_ones_are_removed(rig: Rig) -> None:
    rig.ask(a_poll())
    for index in range(3):
        rig.ask(Fetch("cam", "red", 7, index))
    rig.controller.answers[Poll] = Offer(b"s", b"head of red 8", OFFER.digests[:32], b"")
    rig.ask(a_poll())
    assert [p.name for p in (rig.folder / "pieces").iterdir()] == [OFFER.digests[:32].hex()]
    rig.ask(Fetch("cam", "red", 7, 0))
    assert rig.controller.asked_kinds()[-1] == "Fetch"
    asked = len(rig.controller.asked)
    assert rig.ask(Fetch("cam", "red", 8, 0)) == Piece(0, PIECES[0])
    assert len(rig.controller.asked) == asked


def test_an_offer_that_ends_a_list_empties_the_cache(rig: Rig) -> None:
    rig.ask(a_poll())
    rig.ask(Fetch("cam", "red", 7, 0))
    rig.controller.answers[Poll] = Offer(b"stamp", b"", b"", b"")
    rig.ask(a_poll())
    assert list((rig.folder / "pieces").iterdir()) == []


def test_an_offer_whose_head_is_none_is_relayed_for_the_watch_to_refuse(rig: Rig) -> None:
    rig.controller.answers[Poll] = Offer(b"stamp", b"no head", bytes(33), b"")
    assert rig.ask(a_poll()) == Offer(b"stamp", b"no head", bytes(33), b"")


def test_the_cache_is_bounded_and_does_without_a_card(tmp_path: Path) -> None:
    cache = PieceCache(tmp_path / "pieces", max_bytes=len(PIECES[0]) + 5)
    cache.expect("red", 7, OFFER.digests)
    for index, sealed in enumerate(PIECES):
        cache.put("red", 7, index, sealed)
    assert [cache.get("red", 7, i) is not None for i in range(4)] == [True, False, False, False]
    (tmp_path / "file").write_bytes(b"")
    cache = PieceCache(tmp_path / "file" / "pieces")
    cache.expect("red", 7, OFFER.digests)
    cache.put("red", 7, 0, PIECES[0])
    assert cache.get("red", 7, 0) is None
    cache.clear()


def test_what_a_killed_write_left_behind_is_swept(tmp_path: Path) -> None:
    (tmp_path / "pieces").mkdir()
    (tmp_path / "pieces" / ".abc.12345678").write_bytes(bytes(PIECE_MAX_BYTES))
    PieceCache(tmp_path / "pieces")
    assert list((tmp_path / "pieces").iterdir()) == []


def test_the_version_in_use_becomes_the_floor_and_survives(rig: Rig) -> None:
    rig.ask(a_poll("red", 7))
    rig.ask(a_poll("red", 5))
    rig.ask(a_poll("blue", 2))
    rig.ask(a_poll())
    assert rig.ask(HELLO) == Welcome(123, (("red", 7), ("blue", 2)))
    assert rig.heard == [123]
    assert rig.answers.acquire(blocking=False)
    rig.restart()
    assert rig.ask(HELLO) == Welcome(123, (("red", 7), ("blue", 2)))


def test_a_floor_is_kept_before_the_controller_hears_of_it(rig: Rig) -> None:
    rig.link.up = False
    rig.ask(a_poll("red", 7))
    assert Floors(rig.folder / "floors.json").all() == (("red", 7),)


def test_the_floors_are_bounded(tmp_path: Path) -> None:
    floors = Floors(tmp_path / "floors.json")
    for number in range(FLOORS_MAX + 3):
        floors.in_use(f"list-{number}", 1)
    assert len(floors.all()) == FLOORS_MAX
    assert floors.all()[-1] == (f"list-{FLOORS_MAX + 2}", 1)
    assert Floors(tmp_path / "floors.json").all() == floors.all()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'[["red", -1]]', b" " * 70_000])
def test_damaged_floors_are_set_aside_and_said(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "floors.json"
    path.write_bytes(content)
    floors = Floors(path)
    assert floors.all() == ()
    assert "no floors are known" in caplog.text
    assert (tmp_path / "floors.json.damaged").exists()
    floors.in_use("red", 3)
    assert Floors(path).all() == (("red", 3),)


def test_floors_that_cannot_be_written_hold_in_memory_and_are_written_later(tmp_path: Path) -> None:
    floors = Floors(tmp_path / "missing" / "floors.json")
    floors.in_use("red", 3)
    assert floors.all() == (("red", 3),)
    (tmp_path / "missing").mkdir()
    floors.in_use("red", 3)
    assert Floors(tmp_path / "missing" / "floors.json").all() == (("red", 3),)


@given(versions=st.lists(st.tuples(st.sampled_from(["red", "blue"]), st.integers(0, 2**63 - 1))))
@settings(max_examples=25, deadline=None)
def test_no_sequence_of_polls_lowers_a_floor(
    versions: Sequence[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("floors") / "floors.json"
    highest: dict[str, int] = {}
    for list_id, version in versions:
        Floors(path).in_use(list_id, version)
        highest[list_id] = max(version, highest.get(list_id, 0))
        assert dict(Floors(path).all()) == {k: v for k, v in highest.items() if v}


def test_other_nodes_and_other_questions_are_refused(rig: Rig) -> None:
    for request in (
        Report("cam-2", (Row(BOOT, 1, b"x"),)),
        Show("watching", camera_on=True),
        Upgrade("cam", (0, 1, 0, 0), Outcome.ROLLED_BACK, bytes(32)),
        Pull("cam", bytes(32), 0),
    ):
        assert isinstance(rig.ask(request), Deny)
    assert (rig.relay.hostile, rig.outbox.depth, rig.controller.asked) == (4, 0, [])


def mutated(original: bytes) -> st.SearchStrategy[bytes]:
    flips = st.lists(st.tuples(st.integers(0, len(original) - 1), st.integers(0, 255)), max_size=8)
    cuts = st.integers(0, len(original))

    def mutate(flips: list[tuple[int, int]], cut: int) -> bytes:
        changed = bytearray(original)
        for place, value in flips:
            changed[place] = value
        return bytes(changed[:cut])

    return st.builds(mutate, flips, cuts)


QUESTIONS: tuple[Request, ...] = (
    Report("cam", (Row(BOOT, 1, b"x" * 40),)),
    a_poll("red", 7),
    Fetch("cam", "red", 7, 0),
    HEALTH,
)


@given(
    question=st.one_of(st.binary(max_size=300), *(mutated(encode(q)) for q in QUESTIONS)),
)
@settings(max_examples=300, deadline=None)
def test_hostile_bytes_are_denied_or_are_a_question(
    question: bytes, relay_of: Callable[[], Rig]
) -> None:
    rig = relay_of()
    read = rig.relay.read(question)
    assert isinstance(read, Deny | Hello | Poll | Fetch | Report | Health)
    if isinstance(read, Fetch | Report):
        rig.relay.at_once(read)
    assert rig.outbox.depth <= 10


@pytest.fixture(scope="module")
def relay_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Rig]:
    made = Rig(tmp_path_factory.mktemp("relay"))
    return lambda: made


def test_a_question_over_the_bound_is_denied(rig: Rig) -> None:
    assert rig.relay.read(bytes(200_000)) == Deny("not a question")
