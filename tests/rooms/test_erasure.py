from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ErasureError
from appliance.system.erasure import FramePool, Ledger
from appliance.system.latency import Histogram
from appliance.system.memory import peak_rss_bytes, rss_bytes
from appliance.types import Image

DURATIONS = st.lists(st.integers(min_value=0, max_value=3600 * 10**9), min_size=1, max_size=300)


@given(st.lists(st.booleans(), max_size=60))
def test_a_buffer_is_zero_whenever_it_is_taken(takes: list[bool]) -> None:
    pool = FramePool(3, (8, 6))
    held: list[Image] = []
    for take in takes:
        if take and len(held) < 3:
            image = pool.take(0)
            assert image.shape == (6, 8, 3)
            assert image.dtype == np.uint8
            assert not image.any()
            assert all(image is not other for other in held)
            image.fill(255)
            held.append(image)
        elif held:
            returned = held.pop(0)
            pool.give_back(returned)
            assert not returned.any()
        assert pool.lent == len(held)


def test_an_empty_pool_says_so() -> None:
    pool = FramePool(1, (4, 4))
    pool.take(0)
    with pytest.raises(ErasureError, match=r"none of 1 frame buffers came back within 0\.01 s"):
        pool.take(0.01)


def test_take_waits_for_a_buffer() -> None:
    pool = FramePool(1, (4, 4))
    image = pool.take(0)
    threading.Timer(0.02, pool.give_back, [image]).start()
    assert pool.take(10) is image


def test_refuses_a_buffer_given_back_twice() -> None:
    pool = FramePool(2, (4, 4))
    image = pool.take(0)
    pool.give_back(image)
    with pytest.raises(ErasureError, match="twice"):
        pool.give_back(image)


def test_refuses_a_foreign_buffer_and_a_view_of_its_own() -> None:
    pool = FramePool(1, (4, 4))
    image = pool.take(0)
    image.fill(9)
    for stranger in (np.zeros_like(image), image[:]):
        with pytest.raises(ErasureError, match="not of this pool"):
            pool.give_back(stranger)
    assert image.all()


@given(st.lists(st.sampled_from(["seen", "erased", "alerted"]), max_size=200))
def test_the_books_balance_exactly_while_no_face_is_let_go_twice(moves: list[str]) -> None:
    ledger = Ledger()
    held = lowest = 0
    for move in moves:
        getattr(ledger, f"face_{move}")()
        held += 1 if move == "seen" else -1
        lowest = min(lowest, held)
        account = ledger.snapshot()
        assert account.faces_held == held
        assert account.balanced == (held >= 0)
    account = ledger.snapshot()
    assert account.faces_seen == moves.count("seen")
    assert account.faces_erased == moves.count("erased")
    assert account.faces_alerted == moves.count("alerted")


def test_an_audit_finds_a_face_that_was_dropped_without_being_erased() -> None:
    ledger = Ledger()
    ledger.face_seen()
    ledger.face_seen()
    ledger.audit(2)
    assert ledger.snapshot().balanced
    ledger.audit(1)
    assert not ledger.snapshot().balanced


def test_an_audit_that_agrees_lets_the_books_go_on() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.face_seen()
    ledger.face_erased()
    ledger.face_alerted()
    ledger.audit(1)
    ledger.face_erased()
    account = ledger.snapshot()
    assert account.balanced
    assert account.faces_held == 0


def test_latencies_of_frames_and_vectors_are_kept_apart() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.frame_erased(20_000_000)
    ledger.vectors_erased(1_000_000_000)
    account = ledger.snapshot()
    assert (account.frames.count, account.vectors.count) == (3, 1)
    assert account.frames.max_ms == 20
    assert account.frames.p50_ms == pytest.approx(20, rel=0.05)
    assert account.vectors.p99_ms == 1000


def test_nothing_erased_yet_is_all_zeros() -> None:
    frames = Ledger().snapshot().frames
    assert (frames.count, frames.p50_ms, frames.p99_ms, frames.max_ms) == (0, 0, 0, 0)


@given(DURATIONS, st.sampled_from([1.0, 50.0, 99.0, 100.0]))
def test_percentiles_are_at_most_five_percent_above_the_true_ones(
    durations: list[int], percent: float
) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    true = float(np.percentile(durations, percent, method="inverted_cdf"))
    estimate = histogram.percentile_ns(percent)
    assert true * 0.999999 <= estimate
    assert estimate <= max(1000.0, true * 1.050001)
    assert histogram.summary().max_ms == max(durations) / 1e6


def test_a_duration_that_ends_before_it_began_is_refused() -> None:
    with pytest.raises(ValueError, match="ended before it began"):
        Histogram().add(-1)


def test_many_threads_count_without_losing_one() -> None:
    ledger = Ledger()

    def count() -> None:
        for _ in range(500):
            ledger.face_seen()
            ledger.frame_erased(1000)
            ledger.face_erased()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    account = ledger.snapshot()
    assert (account.faces_seen, account.faces_erased, account.faces_held) == (2000, 2000, 0)
    assert account.frames.count == 2000


def test_memory_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    status = tmp_path / "self" / "status"
    status.write_text("Name:\tpicket\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n", encoding="ascii")
    assert rss_bytes(tmp_path) == 1024 * 1024
    assert peak_rss_bytes(tmp_path) == 2048 * 1024
    status.write_text("Name:\tpicket\n", encoding="ascii")
    with pytest.raises(OSError, match="has no VmRSS"):
        rss_bytes(tmp_path)


def test_this_process_has_memory() -> None:
    assert 1_000_000 < rss_bytes() <= peak_rss_bytes()
