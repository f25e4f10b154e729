"""Outbox to next hop over a simulated cable: at least once, oldest first."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.alerts.outbox import MemoryOutbox
from appliance.link.simulated import SimulatedLink
from appliance.link.uplink import Uplink
from appliance.system.clock import SimulatedClock
from appliance.wire import (
    ROWS_PER_REPORT,
    Ack,
    Answer,
    Deny,
    Report,
    Row,
    Welcome,
    decode_request,
    encode,
)

BOOT = b"b" * 16


class Rig:
    """An uplink, its outbox, and a next hop that stores or says something else."""

    def __init__(self) -> None:
        self.stored: list[Row] = []
        self.answer: Answer = Ack()
        self.link = SimulatedLink(self._store)
        self.outbox = MemoryOutbox(10_000)
        self.clock = SimulatedClock()
        self.stop = threading.Event()
        self.uplink = Uplink(
            self.outbox,
            self.link,
            node="cam",
            timeout_s=1.0,
            rng=random.Random(1),  # noqa: S311 - a spread
            clock=self.clock,
            stop=self.stop,
        )

    def _store(self, question: bytes) -> bytes:
        report = decode_request(question)
        assert isinstance(report, Report)
        assert report.node == "cam"
        if isinstance(self.answer, Ack):
            self.stored += report.rows
        return encode(self.answer)

    def put(self, *numbers: int) -> None:
        self.outbox.put([Row(BOOT, n, b"sealed %d" % n) for n in numbers])

    def numbers(self) -> list[int]:
        return [row.sequence for row in self.stored]

    def step(self) -> None:
        """One step, after every wait that there may have been."""
        self.clock.advance(60.0)
        self.uplink.step()


def test_rows_go_in_order_and_leave_the_outbox_when_they_are_taken() -> None:
    rig = Rig()
    rig.put(*range(1, 71))
    for _ in range(3):
        rig.step()
    assert rig.numbers() == list(range(1, 71))
    assert (rig.outbox.depth, rig.uplink.delivered) == (0, 70)
    assert rig.uplink.answered_ns == rig.clock.boot_ns()


def test_a_report_has_no_more_rows_than_it_may() -> None:
    rig = Rig()
    rig.put(*range(1, 71))
    rig.step()
    assert rig.numbers() == list(range(1, ROWS_PER_REPORT + 1))


def test_a_lost_answer_sends_the_same_rows_again() -> None:
    rig = Rig()
    rig.put(1, 2)
    rig.link.lose_next_answer = True
    rig.step()
    assert rig.outbox.depth == 2
    rig.step()
    assert rig.numbers() == [1, 2, 1, 2]
    assert rig.outbox.depth == 0


@pytest.mark.parametrize("answer", [Deny("full"), Welcome(1)])
def test_whatever_is_not_an_acknowledgement_leaves_all_where_it_is(answer: Answer) -> None:
    rig = Rig()
    rig.put(1)
    rig.answer = answer
    rig.step()
    assert rig.outbox.depth == 1
    rig.answer = Ack()
    rig.step()
    assert rig.outbox.depth == 0


def test_during_a_wait_nothing_is_asked_and_a_step_is_short() -> None:
    rig = Rig()
    rig.put(1)
    rig.link.up = False
    rig.step()
    rig.link.up = True
    rig.stop.set()  # so that the slice of the wait is over at once
    for _ in range(100):
        rig.uplink.step()
    assert rig.numbers() == []
    rig.stop.clear()
    rig.step()
    assert rig.numbers() == [1]


def test_word_from_the_next_hop_ends_a_wait_unless_it_said_no() -> None:
    rig = Rig()
    rig.put(1)
    rig.link.up = False
    rig.step()
    rig.link.up = True
    rig.uplink.hurry()
    rig.answer = Deny("too many reports wait")
    rig.uplink.step()
    assert rig.uplink.refused == "refused: too many reports wait"
    rig.answer = Ack()
    rig.uplink.hurry()
    rig.stop.set()  # so that the slice of the wait is over at once
    rig.uplink.step()
    assert rig.numbers() == []
    assert len(rig.link.arrived) == 1
    rig.stop.clear()
    rig.step()
    assert (rig.numbers(), rig.uplink.refused) == ([1], "")


@given(st.lists(st.sampled_from(["put", "step", "lose", "pull", "plug"]), max_size=60))
def test_everything_put_arrives_whatever_happens_to_the_cable(happenings: list[str]) -> None:
    rig, last = Rig(), 0
    for happening in happenings:
        match happening:
            case "put":
                last += 1
                rig.put(last)
            case "step":
                if rig.outbox.depth:
                    rig.step()
            case "lose":
                rig.link.lose_next_answer = True
            case "pull":
                rig.link.up = False
            case "plug":
                rig.link.up = True
    rig.link.up, rig.link.lose_next_answer = True, False
    while rig.outbox.depth:
        rig.step()
    first_seen = list(dict.fromkeys(rig.numbers()))
    assert first_seen == list(range(1, last + 1))


def test_a_flush_sends_what_is_left_and_gives_up_at_the_first_failure() -> None:
    rig = Rig()
    rig.put(*range(1, 101))
    assert rig.uplink.flush(5.0) == 0
    rig.put(101)
    rig.link.up = False
    assert rig.uplink.flush(5.0) == 1
    assert rig.numbers() == list(range(1, 101))


def test_a_next_hop_that_keeps_alerts_in_memory_only_is_noticed_and_so_is_its_return() -> None:
    rig = Rig()
    told = [rig.uplink.durable]
    for number, durable in enumerate((False, True), start=1):
        rig.answer = Ack(durable=durable)
        rig.put(number)
        rig.step()
        told.append(rig.uplink.durable)
    assert told == [True, False, True]
