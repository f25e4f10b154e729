"""What the link service does about updates: against a controller made of a function."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.alerts.outbox import MemoryOutbox
from appliance.errors import CardError, DigestError, LinkError
from appliance.link import outcome
from appliance.link import part as parts
from appliance.link.outcome import REMEMBERED, Tried
from appliance.link.part import READY, PartFile
from appliance.link.simulated import SimulatedLink
from appliance.link.upgrade import Upgrader
from appliance.system.clock import SimulatedClock
from appliance.wire import (
    TRIES_MAX,
    Ack,
    Answer,
    Bundle,
    Deny,
    Outcome,
    Part,
    Pull,
    Request,
    Row,
    Upgrade,
    decode_request,
    encode,
)

PART = 1024
CONTENT = random.Random(1).randbytes(5 * PART + 7)  # noqa: S311 - bytes
DIGEST = hashlib.sha256(CONTENT).digest()
OFFER = Bundle((0, 2, 0, 0), DIGEST, len(CONTENT), PART)
RUNS = (0, 1, 0, 0)
ROW = Row(b"b" * 16, 1, b"sealed")


class Controller:
    """Offers an update and gives its parts; remembers what it was asked."""

    def __init__(self) -> None:
        self.offer: Answer = OFFER
        self.content = CONTENT
        self.asked: list[Request] = []
        self.away = False

    def __call__(self, question: bytes) -> bytes:
        if self.away:
            raise LinkError("away")
        request = decode_request(question)
        self.asked.append(request)
        if isinstance(request, Upgrade):
            return encode(self.offer)
        assert isinstance(request, Pull)
        return encode(self.part(request))

    def part(self, pull: Pull) -> Answer:
        if not isinstance(self.offer, Bundle):
            return Deny("no such update is offered")
        at = pull.index * PART
        return Part(pull.index, self.content[at : at + PART])

    def pulled(self) -> list[int]:
        return [one.index for one in self.asked if isinstance(one, Pull)]

    def told(self) -> list[Outcome]:
        return [one.outcome for one in self.asked if isinstance(one, Upgrade)]


class Rig:
    def __init__(self, folder: Path) -> None:
        self.state, self.own = folder / "state", folder / "own"
        for made in (self.state, self.own):
            made.mkdir(exist_ok=True)
        self.controller, self.clock = Controller(), SimulatedClock()
        self.outbox = MemoryOutbox(8)
        self.started: list[Upgrader] = []
        self.start()

    def start(self) -> None:
        """The link service, once more."""
        self.stop = Passing(self.clock)
        rng = random.Random(3)  # noqa: S311 - spreads questions
        self.upgrader = Upgrader(
            "cam", SimulatedLink(self.controller), self.outbox, state=self.state, running=RUNS,
            tried=lambda: outcome.read(self.own), timeout_s=1.0, rng=rng,
            clock=self.clock, stop=self.stop, every_s=300.0,
        )  # fmt: skip
        self.started.append(self.upgrader)

    def run(self, until: Callable[[], bool], steps: int = 20_000) -> None:
        for _ in range(steps):
            if until():
                return
            self.upgrader.step()
        raise AssertionError("it did not come to that")

    def pass_time(self, seconds: float) -> None:
        ends_ns = self.clock.boot_ns() + round(seconds * 1e9)
        self.run(lambda: self.clock.boot_ns() >= ends_ns)

    @property
    def folder(self) -> Path:
        return self.state / parts.FOLDER

    @property
    def ready(self) -> Path:
        return self.folder / READY

    def root_says(self, found: Outcome, tries: int = 1, why: str = "") -> None:
        """Root has taken what was ready."""
        self.ready.unlink(missing_ok=True)
        name = DIGEST.hex()
        outcome.write(
            self.own,
            Tried(
                sha256=name, version=OFFER.version, outcome=found, why=why, tries=((name, tries),)
            ),
        )


class Passing(threading.Event):
    """Never set; whoever waits for it finds that the time has passed."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self._clock.advance(timeout)
        return self.is_set()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    for upgrader in rig.started:
        upgrader.close()


def test_an_update_is_fetched_verified_asked_for_again_and_handed_over(rig: Rig) -> None:
    rig.run(rig.ready.exists)
    assert rig.ready.read_bytes() == CONTENT
    assert rig.controller.pulled() == [0, 1, 2, 3, 4, 5]
    assert rig.controller.told() == [Outcome.NONE, Outcome.FETCHING]
    assert [path.name for path in rig.folder.iterdir()] == [READY]
    rig.pass_time(900)  # root is busy: nothing is fetched meanwhile
    assert set(rig.controller.told()[2:]) == {Outcome.INSTALLING}
    assert rig.controller.pulled() == [0, 1, 2, 3, 4, 5]
    rig.root_says(Outcome.ROLLED_BACK, why="its services did not come up")
    before = len(rig.controller.asked)
    rig.controller.offer = Ack()
    rig.pass_time(5)  # news is told at once
    said = rig.controller.asked[before]
    assert isinstance(said, Upgrade)
    assert (said.outcome, said.bundle, said.tries) == (Outcome.ROLLED_BACK, DIGEST, 1)
    assert said.why == "its services did not come up"


def test_a_killed_fetch_goes_on_where_it_was(rig: Rig) -> None:
    rig.run(lambda: rig.controller.pulled() == [0, 1, 2])
    rig.start()  # without a word of farewell
    rig.run(rig.ready.exists)
    assert rig.controller.pulled() == [0, 1, 2, 3, 4, 5]
    assert rig.ready.read_bytes() == CONTENT


def test_a_fetch_is_paced_and_an_alert_goes_first(rig: Rig) -> None:
    rig.run(lambda: len(rig.controller.pulled()) == 1)
    began_ns = rig.clock.boot_ns()
    rig.run(lambda: len(rig.controller.pulled()) == 3)
    assert rig.clock.boot_ns() - began_ns > 1.9e9 * PART / 2**20
    rig.outbox.put([ROW])
    rig.pass_time(60)
    assert len(rig.controller.pulled()) == 3
    rig.outbox.drop([ROW])
    rig.run(rig.ready.exists)


@pytest.mark.parametrize("answer", [Ack(), Deny("no such update is offered")])
def test_a_pause_ends_a_fetch_and_keeps_what_has_come(rig: Rig, answer: Answer) -> None:
    rig.run(lambda: len(rig.controller.pulled()) == 3)
    rig.controller.offer = answer
    rig.pass_time(1000)
    assert len(rig.controller.pulled()) == 4  # the one that was denied
    rig.controller.offer = OFFER
    rig.run(rig.ready.exists)
    assert rig.controller.pulled()[4:] == [3, 4, 5]


def test_what_is_not_wanted_any_more_is_not_handed_over(rig: Rig) -> None:
    rig.run(lambda: len(rig.controller.pulled()) == 6)
    rig.controller.offer = Ack()  # a deployment has begun, say
    rig.pass_time(1000)
    assert not rig.ready.exists()
    rig.controller.offer = OFFER
    rig.run(rig.ready.exists)
    assert len(rig.controller.pulled()) == 6


def test_another_sha256_is_fetched_once_more_then_refused_and_rested_from(rig: Rig) -> None:
    rig.controller.content = CONTENT[:-1] + b"!"
    rig.run(lambda: Outcome.REFUSED in rig.controller.told())
    assert len(rig.controller.pulled()) == 12
    assert not list(rig.folder.iterdir())
    rig.controller.content = CONTENT
    rig.pass_time(1800)
    assert len(rig.controller.pulled()) == 12
    rig.run(rig.ready.exists)


@pytest.mark.parametrize("version", [RUNS, (0, 0, 9, 9)])
def test_what_is_not_newer_is_refused_before_it_is_fetched(
    rig: Rig, version: tuple[int, int, int, int]
) -> None:
    rig.controller.offer = Bundle(version, DIGEST, len(CONTENT), PART)
    rig.run(lambda: Outcome.REFUSED in rig.controller.told())
    said = rig.controller.asked[-1]
    assert isinstance(said, Upgrade)
    assert "is not newer than 0.1.0" in said.why
    assert not rig.controller.pulled()


@pytest.mark.parametrize(
    ("found", "tries"), [(Outcome.REFUSED, 1), (Outcome.ROLLED_BACK, 3), (Outcome.TRYING, 1)]
)
def test_what_root_would_refuse_again_is_not_fetched(rig: Rig, found: Outcome, tries: int) -> None:
    rig.root_says(found, tries)
    rig.pass_time(4000)
    assert not rig.controller.pulled()


@pytest.mark.parametrize("found", [Outcome.ROLLED_BACK, Outcome.NONE])
def test_what_was_rolled_back_or_interrupted_may_be_tried_again(rig: Rig, found: Outcome) -> None:
    rig.root_says(found, 1)
    rig.run(rig.ready.exists)


def test_a_bundle_that_root_cannot_even_read_is_told_of_and_rested_from(rig: Rig) -> None:
    rig.run(rig.ready.exists)
    rig.ready.unlink()
    outcome.write(rig.own, Tried(outcome=Outcome.REFUSED, why="is no regular file"))
    before = len(rig.controller.pulled())
    rig.pass_time(1000)
    said = rig.controller.asked[-1]
    assert isinstance(said, Upgrade)
    assert (said.outcome, said.bundle, said.why) == (
        Outcome.REFUSED, DIGEST, "is no regular file",
    )  # fmt: skip
    assert len(rig.controller.pulled()) == before
    rig.start()
    rig.run(rig.ready.exists)


def test_a_controller_that_is_away_costs_a_question_now_and_then(rig: Rig) -> None:
    rig.run(lambda: len(rig.controller.pulled()) == 2)
    rig.controller.away = True
    rig.pass_time(3600)
    rig.controller.away = False
    rig.run(rig.ready.exists)
    assert rig.controller.pulled() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("cut", [b"", CONTENT[: PART - 1], CONTENT[: PART + 1]])
def test_a_part_of_another_length_is_not_kept(rig: Rig, cut: bytes) -> None:
    rig.run(lambda: len(rig.controller.pulled()) == 1)
    if cut:
        rig.controller.part = lambda pull: Part(pull.index, cut)  # type: ignore[method-assign]  # hostile
    else:
        rig.controller.part = lambda pull: Part(pull.index - 1, CONTENT[:PART])  # type: ignore[method-assign]  # the wrong one
    rig.run(lambda: len(rig.controller.pulled()) == 3)
    (kept,) = rig.folder.iterdir()
    assert kept.stat().st_size == PART


def test_another_bundle_takes_the_place_of_a_half_fetched_one(rig: Rig) -> None:
    rig.run(lambda: len(rig.controller.pulled()) == 3)
    content = b"another" * 400
    rig.controller.content = content
    rig.controller.offer = Bundle(
        (0, 3, 0, 0), hashlib.sha256(content).digest(), len(content), PART
    )
    rig.run(rig.ready.exists)
    assert rig.ready.read_bytes() == content


def test_without_room_nothing_is_fetched_and_the_reason_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ROOM_BYTES", 2**60)
    rig.run(lambda: rig.controller.told()[-2:] == [Outcome.FETCHING] * 2)
    said = rig.controller.asked[-1]
    assert isinstance(said, Upgrade)
    assert "MiB free: an update needs" in said.why
    assert not rig.controller.pulled()
    assert not list(rig.folder.iterdir())
    monkeypatch.setattr(parts, "ROOM_BYTES", 0)
    rig.run(rig.ready.exists)


def test_a_card_that_fills_up_gives_its_room_back_to_alerts(rig: Rig) -> None:
    rig.run(lambda: len(rig.controller.pulled()) == 3)
    assert rig.upgrader._part is not None
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, rig.upgrader._part._file.fileno())
    os.close(full)
    rig.run(lambda: len(rig.controller.pulled()) == 4)
    assert not list(rig.folder.iterdir())
    rig.run(rig.ready.exists)


def test_the_card_never_holds_more_than_one_bundle(tmp_path: Path) -> None:
    first = PartFile(tmp_path, OFFER)
    first.append(CONTENT[:PART])
    other = PartFile(tmp_path, Bundle(OFFER.version, b"o" * 32, 10, PART))
    assert len(list(tmp_path.iterdir())) == 1
    first.close()
    other.close()


@settings(max_examples=60, deadline=None)
@given(held=st.binary(max_size=3 * PART), size=st.integers(1, 3 * PART))
def test_whatever_a_power_cut_left_is_gone_on_with_from_a_whole_part(
    tmp_path_factory: pytest.TempPathFactory, held: bytes, size: int
) -> None:
    folder = tmp_path_factory.mktemp("part")
    content = CONTENT[:size]
    offer = Bundle(OFFER.version, hashlib.sha256(content).digest(), size, PART)
    (folder / f"part-{offer.sha256.hex()}").write_bytes(held)
    part = PartFile(folder, offer)
    assert part.held in {min(len(held), size), min(len(held), size) // PART * PART}
    while not part.complete:
        at = part.index * PART
        part.append(content[at : at + PART])
    try:
        assert part.verify(threading.Event())
        part.hand_over()
        assert (folder / READY).read_bytes() == content
    except DigestError:
        assert not held.startswith(content[: min(len(held), size)])
        assert not list(folder.iterdir())


# What root leaves for the link service to read


def test_what_root_writes_is_what_the_link_reads(tmp_path: Path) -> None:
    tried = Tried(sha256="ab" * 32, version=RUNS, outcome=Outcome.TRYING, why="x").again("ab" * 32)
    outcome.write(tmp_path, tried)
    assert outcome.read(tmp_path) == tried
    assert (tmp_path / outcome.FILE).stat().st_mode & 0o777 == 0o644


def test_tries_are_counted_per_bundle_and_bounded() -> None:
    tried = Tried()
    for number in range(2 * REMEMBERED):
        tried = tried.again(f"{number:064x}")
    assert len(tried.tries) == REMEMBERED
    assert tried.times(f"{2 * REMEMBERED - 1:064x}") == 1
    for _ in range(2 * TRIES_MAX):
        tried = tried.again("ab" * 32)
    assert tried.times("ab" * 32) == TRIES_MAX


@given(st.binary(max_size=200))
def test_a_damaged_file_tells_of_nothing_tried(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("own")
    (folder / outcome.FILE).write_bytes(content)
    assert outcome.read(folder) == Tried()


def test_a_link_or_a_pipe_or_a_long_file_tells_of_nothing_tried(tmp_path: Path) -> None:
    path = tmp_path / outcome.FILE
    outcome.write(tmp_path, Tried(why="true"))
    path.rename(tmp_path / "other")
    path.symlink_to(tmp_path / "other")
    assert outcome.read(tmp_path) == Tried()
    path.unlink()
    os.mkfifo(path)
    assert outcome.read(tmp_path) == Tried()
    path.unlink()
    path.write_bytes(b'{"why":"true"}' + b" " * 20_000)
    assert outcome.read(tmp_path) == Tried()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CardError, match="file"):
        PartFile(tmp_path / "file", OFFER)
