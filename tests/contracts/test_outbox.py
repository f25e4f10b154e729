"""Outbox: in memory and on the card, against a list; with reopening where there is a file."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from appliance.alerts.durable import SqliteOutbox
from appliance.alerts.outbox import MemoryOutbox
from appliance.errors import OutboxFullError
from appliance.wire import Row

CAPACITY = 6
Either = MemoryOutbox | SqliteOutbox


def a_row(sequence: int, boot: bytes = b"b" * 16, sealed: bytes = b"sealed") -> Row:
    return Row(boot, sequence, sealed)


@pytest.fixture(params=["memory", "card"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int], Either]]:
    opened: list[SqliteOutbox] = []

    def open_one(capacity: int) -> Either:
        if request.param == "memory":
            return MemoryOutbox(capacity)
        opened.append(SqliteOutbox(tmp_path / "outbox.db", capacity=capacity))
        return opened[-1]

    yield open_one
    for outbox in opened:
        outbox.close()


class AgainstAList(RuleBasedStateMachine):
    """Two boots, numbers that repeat, batches, and whatever is reopened must be as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = self.opened()
        self.model: list[Row] = []
        self.refused = 0

    def opened(self) -> Either:
        return MemoryOutbox(CAPACITY)

    @rule(numbers=st.lists(st.tuples(st.sampled_from([b"a" * 16, b"b" * 16]), st.integers(1, 9))))
    def put(self, numbers: list[tuple[bytes, int]]) -> None:
        rows = [a_row(sequence, boot) for boot, sequence in numbers]
        new = [row for i, row in enumerate(rows) if row not in self.model and row not in rows[:i]]
        if len(self.model) + len(new) > CAPACITY:
            self.refused += len(new)
            with pytest.raises(OutboxFullError, match="holds 6"):
                self.outbox.put(rows)
            return
        self.outbox.put(rows)
        self.model += new

    @rule(most=st.integers(-1, 8))
    def peek(self, most: int) -> None:
        assert list(self.outbox.peek(most)) == self.model[: max(most, 0)]

    @rule(numbers=st.lists(st.tuples(st.sampled_from([b"a" * 16, b"b" * 16]), st.integers(1, 9))))
    def drop(self, numbers: list[tuple[bytes, int]]) -> None:
        rows = [a_row(sequence, boot) for boot, sequence in numbers]
        self.outbox.drop(rows)
        self.model = [row for row in self.model if row not in rows]

    @precondition(lambda self: self.model)
    @rule(most=st.integers(1, 4))
    def deliver(self, most: int) -> None:
        self.outbox.drop(self.outbox.peek(most))
        self.model = self.model[most:]

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        assert self.outbox.depth == len(self.model)
        assert self.outbox.refused == self.refused
        assert self.outbox.wait(0.0) is bool(self.model)


class OnTheCard(AgainstAList):
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        super().__init__()

    def opened(self) -> SqliteOutbox:
        return SqliteOutbox(self.folder / "outbox.db", capacity=CAPACITY, retry_s=0.0)

    @rule()
    def reopen(self) -> None:
        assert isinstance(self.outbox, SqliteOutbox)
        assert self.outbox.durable
        self.outbox.close()
        self.outbox = self.opened()
        self.refused = 0

    @rule(damage=st.sampled_from([b"", b"not a database at all", b"\xff" * 5000]))
    def start_over_from_damage(self, damage: bytes) -> None:
        """A damaged file is set aside; what was in it is gone from here, and nothing breaks."""
        assert isinstance(self.outbox, SqliteOutbox)
        self.outbox.close()
        (self.folder / "outbox.db").write_bytes(damage)
        self.outbox = self.opened()
        assert self.outbox.durable
        self.model, self.refused = [], 0

    def teardown(self) -> None:
        assert isinstance(self.outbox, SqliteOutbox)
        self.outbox.close()
        shutil.rmtree(self.folder)


TestInMemory = AgainstAList.TestCase
TestInMemory.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestOnTheCard = OnTheCard.TestCase
TestOnTheCard.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)


def test_rows_that_come_again_are_kept_once_and_in_their_first_place(
    make: Callable[[int], Either],
) -> None:
    outbox = make(10)
    outbox.put([a_row(1), a_row(2)])
    outbox.put([a_row(2), a_row(3), a_row(3)])
    assert [row.sequence for row in outbox.peek(10)] == [1, 2, 3]


def test_a_batch_that_does_not_fit_is_refused_whole_and_counted(
    make: Callable[[int], Either],
) -> None:
    outbox = make(3)
    outbox.put([a_row(1), a_row(2)])
    with pytest.raises(OutboxFullError, match="2 alerts wait for the next hop, and 2 more came"):
        outbox.put([a_row(3), a_row(4)])
    assert (outbox.depth, outbox.refused) == (2, 2)
    outbox.put([a_row(2), a_row(3)])
    assert outbox.depth == 3


def test_a_waiting_uplink_is_woken_by_a_put(make: Callable[[int], Either]) -> None:
    outbox = make(1)
    woken: list[bool] = []
    uplink = threading.Thread(target=lambda: woken.append(outbox.wait(10.0)))
    uplink.start()
    outbox.put([a_row(1)])
    uplink.join(10.0)
    assert woken == [True]


def test_eight_threads_put_and_one_drops_and_none_is_lost(make: Callable[[int], Either]) -> None:
    outbox = make(10_000)
    delivered: list[Row] = []
    done = threading.Event()

    def put_forty(thread: int) -> None:
        for sequence in range(1, 41):
            outbox.put([a_row(sequence, bytes([thread]) * 16)])

    def deliver() -> None:
        while not done.is_set() or outbox.depth:
            rows: Sequence[Row] = outbox.peek(7)
            delivered.extend(rows)
            outbox.drop(rows)

    with ThreadPoolExecutor(9) as threads:
        uplink = threads.submit(deliver)
        for producer in [threads.submit(put_forty, thread) for thread in range(8)]:
            producer.result()
        done.set()
        uplink.result()
    for thread in range(8):
        own = [row.sequence for row in delivered if row.boot == bytes([thread]) * 16]
        assert own == list(range(1, 41))
