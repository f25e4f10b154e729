from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import CameraError
from appliance.system.worker import Crew, Latest, Worker

LONG_S = 10.0


@given(st.lists(st.one_of(st.integers(), st.none())))
def test_the_slot_gives_the_newest_and_hands_back_every_other(moves: list[int | None]) -> None:
    slot: Latest[int] = Latest()
    inside: int | None = None
    for move in moves:
        if move is None:
            assert slot.get(0) == inside
            inside = None
        else:
            assert slot.put(move) == inside
            inside = move


def test_get_waits_for_an_item() -> None:
    slot: Latest[str] = Latest()
    threading.Timer(0.02, slot.put, ["frame"]).start()
    assert slot.get(LONG_S) == "frame"


def test_put_wait_never_displaces() -> None:
    slot: Latest[int] = Latest()
    assert slot.put_wait(1, 0)
    assert not slot.put_wait(2, 0.01)
    assert slot.get(0) == 1


def test_put_wait_goes_on_when_the_slot_is_emptied() -> None:
    slot: Latest[int] = Latest()
    got: list[int | None] = []
    reader = threading.Thread(target=lambda: got.extend(slot.get(LONG_S) for _ in range(100)))
    reader.start()
    assert all(slot.put_wait(n, LONG_S) for n in range(100))
    reader.join(LONG_S)
    assert got == list(range(100))


def test_a_crew_ends_when_it_is_told_to() -> None:
    stop = threading.Event()
    steps: list[int] = []

    def step() -> None:
        steps.append(1)
        if len(steps) == 3:
            stop.set()

    worker = Worker("counter", step, stop)
    Crew([worker], stop).run()
    assert (worker.beats, worker.failure) == (3, None)


def waiting(stop: threading.Event) -> None:
    stop.wait(0.01)


def failing(error: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


def test_a_failure_stops_everybody_and_is_raised_with_its_threads_name() -> None:
    stop = threading.Event()
    idle = Worker("idle", lambda: waiting(stop), stop)
    with pytest.raises(CameraError, match="gone") as caught:
        Crew([idle, Worker("capture", failing(CameraError("gone")), stop)], stop).run()
    assert caught.value.__notes__ == ["in thread capture"]
    assert idle.join(0)


def test_even_what_no_step_should_raise_stops_everybody() -> None:
    stop = threading.Event()
    with pytest.raises(SystemExit):
        Crew([Worker("odd", failing(SystemExit(3)), stop)], stop).run()


def test_the_earliest_failure_is_the_cause() -> None:
    stop, first_failed = threading.Event(), threading.Event()

    def first() -> None:
        first_failed.set()
        raise CameraError("cause")

    def second() -> None:
        first_failed.wait(LONG_S)
        stop.wait(LONG_S)
        raise CameraError("consequence")

    with pytest.raises(CameraError, match="cause"):
        Crew([Worker("second", second, stop), Worker("first", first, stop)], stop).run()


def test_a_worker_that_does_not_end_is_named() -> None:
    stop, release = threading.Event(), threading.Event()

    def stuck() -> None:
        stop.set()
        release.wait(LONG_S)

    with pytest.raises(RuntimeError, match="thread vendor: did not end within"):
        Crew([Worker("vendor", stuck, stop)], stop, join_s=0.05).run()
    release.set()


def test_workers_are_joined_in_the_reverse_of_their_start() -> None:
    stop = threading.Event()
    ended: list[str] = []

    class Watched(Worker):
        def join(self, timeout_s: float) -> bool:
            ended.append(self.name)
            return super().join(timeout_s)

    stop.set()
    Crew([Watched(name, stop.set, stop) for name in ("a", "b", "c")], stop).run()
    assert ended == ["c", "b", "a"]
