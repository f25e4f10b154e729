"""Waits between attempts: longer each time, spread, bounded, in slices."""

from __future__ import annotations

import random
import threading

from hypothesis import given
from hypothesis import strategies as st

from appliance.link.backoff import Backoff
from appliance.system.clock import SimulatedClock


def made(
    seed: int = 1, stop: threading.Event | None = None, *, longest_s: float = 60.0
) -> tuple[Backoff, SimulatedClock]:
    clock = SimulatedClock()
    rng = random.Random(seed)  # noqa: S311 - a spread
    return Backoff(stop or threading.Event(), rng, clock, longest_s=longest_s), clock


@given(seed=st.integers(), failures=st.integers(0, 3000))
def test_waits_lie_between_half_a_second_and_a_minute(seed: int, failures: int) -> None:
    backoff, _ = made(seed)
    backoff.failures = failures
    ceiling_s = min(60.0, 2.0 ** min(failures, 10))
    assert ceiling_s / 2 <= backoff.next_s() <= ceiling_s


def test_a_fleet_does_not_knock_in_step() -> None:
    waits = {round(made(seed)[0].next_s(), 3) for seed in range(100)}
    assert len(waits) > 80


def test_it_is_time_when_the_wait_is_over_and_not_before() -> None:
    backoff, clock = made()
    assert backoff.rest()
    for _ in range(7):
        backoff.fail()
    assert not backoff.rest(0.001)
    clock.advance(29.9)
    assert not backoff.rest(0.001)
    clock.advance(30.2)
    assert backoff.rest(0.001)


def test_a_success_forgets_the_failures() -> None:
    backoff, _ = made()
    for _ in range(7):
        backoff.fail()
    backoff.succeed()
    assert backoff.next_s() <= 1.0


def test_the_end_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    backoff, _ = made(stop=stop)
    backoff.fail()
    stop.set()
    assert not backoff.rest(600.0)
