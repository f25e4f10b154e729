"""The Clock seam: the machine's clocks and the simulated ones keep the same promises."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from appliance.interfaces import Clock
from appliance.system.clock import SimulatedClock, SystemClock


@pytest.fixture(params=["system", "simulated"])
def clock(request: pytest.FixtureRequest) -> Clock:
    return SystemClock() if request.param == "system" else SimulatedClock(utc_ns=10**18)


def test_boot_time_never_steps_back(clock: Clock) -> None:
    read = [clock.boot_ns() for _ in range(100)]
    assert read == sorted(read)
    assert read[0] > 0


def test_utc_is_none_or_a_time_of_this_century(clock: Clock) -> None:
    utc_ns = clock.utc_ns()
    assert utc_ns is None or 946_684_800 * 10**9 < utc_ns < 4_102_444_800 * 10**9


def test_boot_time_is_the_one_that_other_processes_read() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    read = SystemClock().boot_ns()
    assert before <= read <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_a_daemons_evidence_makes_the_wall_clock_count(tmp_path: Path) -> None:
    evidence = tmp_path / "synchronized"
    evidence.touch()
    assert SystemClock(evidence=evidence).utc_ns() is not None


def test_advancing_moves_both_clocks() -> None:
    clock = SimulatedClock(boot_ns=5, utc_ns=100)
    clock.advance(2.5)
    assert (clock.boot_ns(), clock.utc_ns()) == (2_500_000_005, 2_500_000_100)


def test_an_unsynchronised_clock_stays_so_until_it_is_synchronised() -> None:
    clock = SimulatedClock()
    clock.advance(1)
    assert clock.utc_ns() is None
    clock.synchronise(7)
    assert clock.utc_ns() == 7
    clock.synchronise(None)
    assert clock.utc_ns() is None


def test_refuses_to_step_back() -> None:
    with pytest.raises(ValueError, match="never steps back"):
        SimulatedClock().advance(-1e-9)


def test_many_threads_advance_without_losing_time() -> None:
    clock = SimulatedClock(boot_ns=0)

    def advance() -> None:
        for _ in range(200):
            clock.advance(0.001)

    threads = [threading.Thread(target=advance) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert clock.boot_ns() == 800_000_000
