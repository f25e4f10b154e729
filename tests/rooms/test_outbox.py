"""The outbox against a list: first in, first out, numbered without a gap."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from appliance.alerts.outbox import MemoryOutbox
from appliance.errors import OutboxFullError
from appliance.wire import Alert

CAPACITY = 5


def an_alert(subject: str = "s") -> Alert:
    return Alert(
        alert_id=b"a" * 16,
        node="node",
        boot=b"b" * 16,
        sequence=0,
        deployment="market",
        list_id="list",
        list_version=1,
        subject=subject,
        similarity=0.5,
        threshold=0.4,
        false_alert_rate=0.001,
        first_seen_boot_ns=1,
        exposed_boot_ns=2,
        decided_boot_ns=3,
        decided_utc_ms=None,
        frames_fused=5,
        box=(0.1, 0.2, 0.3, 0.4),
        eye_distance_px=30.0,
        occlusion="unknown",
        model="m@000000000000",
    )


class OutboxAgainstAList(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.outbox = MemoryOutbox(CAPACITY)
        self.model: list[tuple[int, str]] = []
        self.numbered = 0
        self.refused = 0

    @rule(subject=st.sampled_from(["ann", "bob", "cy"]))
    def put(self, subject: str) -> None:
        if len(self.model) == CAPACITY:
            self.refused += 1
            with pytest.raises(OutboxFullError, match="holds 5"):
                self.outbox.put(an_alert(subject))
            return
        self.numbered += 1
        assert self.outbox.put(an_alert(subject)) == self.numbered
        self.model.append((self.numbered, subject))

    @rule(up_to=st.integers(-1, 30))
    def drop(self, up_to: int) -> None:
        self.outbox.drop(up_to)
        self.model = [kept for kept in self.model if kept[0] > up_to]

    @rule(most=st.integers(0, 8))
    def peek(self, most: int) -> None:
        seen = [(alert.sequence, alert.subject) for alert in self.outbox.peek(most)]
        assert seen == self.model[:most]

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        assert self.outbox.depth == len(self.model)
        assert self.outbox.refused == self.refused
        assert self.outbox.wait(0.0) is bool(self.model)


TestOutboxAgainstAList = OutboxAgainstAList.TestCase
TestOutboxAgainstAList.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_waiting_uplink_is_woken_by_a_put() -> None:
    outbox = MemoryOutbox(1)
    woken: list[bool] = []
    uplink = threading.Thread(target=lambda: woken.append(outbox.wait(10.0)))
    uplink.start()
    outbox.put(an_alert())
    uplink.join(10.0)
    assert woken == [True]


def test_eight_threads_get_numbers_without_a_gap() -> None:
    outbox = MemoryOutbox(800)
    numbers: list[int] = []

    def put_hundred() -> None:
        numbers.extend(outbox.put(an_alert()) for _ in range(100))

    threads = [threading.Thread(target=put_hundred) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 801))
    assert [alert.sequence for alert in outbox.peek(800)] == list(range(1, 801))
