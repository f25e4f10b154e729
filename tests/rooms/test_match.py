"""The nearest subject is the one that a plain loop finds; after the end there is nobody."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import TemplateError, ThresholdError
from appliance.types import FalseMatch, Match, Vector, Vectors
from appliance.watchlist import columns as searched
from appliance.watchlist.calibration import rate_at, threshold_for
from appliance.watchlist.match import NOBODY, Watchlist, watchlist_of

TABLE = FalseMatch((-1.0, 0.0, 0.3), (1.0, 0.5, 1e-4), 0.3, 1e-4, 40.0, 1000, 10**7, "made up")
DIM = 16


class Memory:
    def __init__(self, nbytes: int) -> None:
        self.view = memoryview(bytearray(nbytes))

    def wipe(self) -> None:
        self.view[:] = bytes(len(self.view))


def unit(rows: int, *, seed: int = 0, dim: int = DIM) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    vectors /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, np.newaxis]
    return vectors


def listed(counts: list[int], vectors: Vectors, **facts: float) -> Watchlist:
    return watchlist_of(
        list_id="wanted",
        version=3,
        deployment="market-day",
        subjects=[f"s{i}" for i in range(len(counts))],
        counts=counts,
        vectors=vectors,
        model="m",
        table=TABLE,
        target_fpir=facts.get("target_fpir", 0.001),
        threshold_floor=facts.get("threshold_floor", 0.3),
        lease_end_ns=10_500_000_000,
        allocate=Memory,
    )


def by_a_plain_loop(counts: list[int], vectors: Vectors, probe: Vector) -> Match:
    best: list[tuple[float, str]] = []
    first = 0
    for i, count in enumerate(counts):
        scores = [float(np.dot(row, probe)) for row in vectors[first : first + count]]
        first += count
        if scores:
            best.append((max(scores), f"s{i}"))
    best.sort(reverse=True)
    return Match(best[0][1], best[0][0], best[1][0] if len(best) > 1 else -1.0)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=30).filter(any),
    st.integers(0, 2**32 - 1),
    st.sampled_from([DIM * 4, DIM * 4 * 3, DIM * 4 * 7, 2**20]),
)
@settings(max_examples=300, deadline=None)
def test_the_nearest_is_the_one_that_a_plain_loop_finds(
    counts: list[int], seed: int, block_bytes: int
) -> None:
    vectors, probes = unit(sum(counts), seed=seed), unit(4, seed=seed + 1)
    before = searched.BLOCK_BYTES
    searched.BLOCK_BYTES = block_bytes  # one row, a few, all
    try:
        watchlist = listed(counts, vectors)
    finally:
        searched.BLOCK_BYTES = before
    together = watchlist.nearest_many(probes)
    for probe, found in zip(probes, together, strict=True):
        expected = by_a_plain_loop(counts, vectors, probe)
        assert found.subject == expected.subject
        assert found.similarity == pytest.approx(expected.similarity, abs=1e-6)
        assert found.runner_up == pytest.approx(expected.runner_up, abs=1e-6)
        assert watchlist.nearest(probe) == found


def test_the_runner_up_is_another_subject_and_not_another_template() -> None:
    near = unit(1)[0]
    vectors = np.stack([near, near, unit(1, seed=5)[0]])
    match = listed([2, 1], vectors).nearest(near)
    assert match.subject == "s0"
    assert match.similarity == pytest.approx(1.0)
    assert match.runner_up == pytest.approx(float(vectors[2] @ near), abs=1e-6)


def test_with_one_subject_there_is_no_runner_up() -> None:
    assert listed([3], unit(3)).nearest(unit(1)[0]).runner_up == -1.0


def test_a_cosine_is_never_beyond_one() -> None:
    # 0.1 * 100 in float32: squares that add up to more than 1.
    vectors = np.full((2, 100), np.float32(0.1), np.float32)
    vectors[1] = -vectors[1]
    match = listed([1, 1], vectors).nearest(vectors[0])
    assert (match.similarity, match.runner_up) == (1.0, -1.0)


def test_a_probe_that_is_no_number_matches_nobody() -> None:
    probe = unit(1)[0].copy()
    probe[3] = math.nan
    watchlist = listed([1] * 50, unit(50))
    match = watchlist.nearest(probe)
    assert not match.similarity >= watchlist.threshold


def test_after_the_wipe_there_is_nobody_and_nothing_left() -> None:
    watchlist = listed([1] * 50, unit(50))
    views = [column.rows for column in watchlist.columns.values()]
    watchlist.wipe()
    watchlist.wipe()
    assert not any(view.any() for view in views)
    assert watchlist.nearest(unit(50)[7]) == NOBODY
    assert watchlist.nearest_many(unit(3)) == [NOBODY] * 3
    assert NOBODY.similarity < watchlist.threshold


def test_a_search_that_is_under_way_is_not_wiped_under_its_hands() -> None:
    vectors = unit(20_000)
    for _ in range(20):
        watchlist = listed([1] * len(vectors), vectors)
        found: list[Match] = []
        search = threading.Thread(
            target=lambda w=watchlist, f=found: f.append(w.nearest(vectors[9]))
        )
        search.start()
        watchlist.wipe()
        search.join()
        assert found[0] == NOBODY or found[0].subject == "s9"


def test_thresholds_and_rates_are_those_of_the_calibration() -> None:
    watchlist = listed([2] * 50, unit(100))
    assert watchlist.threshold == threshold_for(TABLE, templates=100, fpir=0.001, floor=0.3)
    assert watchlist.false_alert_rate(0.4) == rate_at(TABLE, 0.4, templates=100)
    assert watchlist.false_alert_rate(watchlist.threshold) == pytest.approx(0.001)


def test_a_lease_is_told_in_whole_seconds() -> None:
    watchlist = listed([1], unit(1))
    assert [watchlist.lease_left_s(ns) for ns in (0, 9_500_000_001, 10_500_000_001)] == [10, 0, 0]


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(TemplateError, match="add up to 3"):
        listed([1, 2], unit(4))


def test_a_rate_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ThresholdError):
        listed([1], unit(1), target_fpir=1e-30)


def test_no_copy_of_the_templates_is_made() -> None:
    memories: list[Memory] = []

    def allocate(nbytes: int) -> Memory:
        memories.append(Memory(nbytes))
        return memories[-1]

    column = searched.Column(templates=100, dim=DIM, allocate=allocate)
    column.rows[:] = unit(100)
    assert [len(memory.view) for memory in memories] == [100 * DIM * 4]
    assert column.rows.dtype == np.float32
    assert all(np.shares_memory(block, column.rows) for _, block in column._blocks)
