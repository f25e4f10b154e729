import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ThresholdError
from appliance.types import FalseMatch
from appliance.watchlist.calibration import (
    MAX_UNCERTAINTY,
    fit,
    histogram,
    interval_at,
    rate_at,
    threshold_for,
)

TABLE = FalseMatch(
    similarity=(-0.2, 0.1, 0.3, 0.5),
    rate=(1.0, 0.2, 1e-2, 1e-4),
    tail_similarity=0.5,
    tail_rate=1e-4,
    tail_slope=40.0,
    probes=2000,
    comparisons=4_000_000,
    source="made up",
)


def stranger_scores(count: int, seed: int = 1) -> np.ndarray:
    """Cosines whose upper tail is exactly exponential: rate(s) = exp(-30 s) above 0."""
    return np.random.default_rng(seed).exponential(1 / 30, count)


@given(
    templates=st.integers(1, 200_000),
    exponent=st.floats(0.5, 4.0),
)
def test_the_threshold_for_a_rate_has_that_rate(templates: int, exponent: float) -> None:
    fpir = 10**-exponent
    try:
        threshold = threshold_for(TABLE, templates=templates, fpir=fpir, floor=-1.0)
    except ThresholdError:
        return
    if threshold > TABLE.similarity[0]:
        assert rate_at(TABLE, threshold, templates=templates) == pytest.approx(fpir, rel=1e-6)


@given(st.floats(-1, 1), st.floats(-1, 1), st.integers(1, 10**6))
def test_a_higher_score_is_never_a_higher_rate(a: float, b: float, templates: int) -> None:
    low, high = sorted((a, b))
    assert rate_at(TABLE, low, templates=templates) >= rate_at(TABLE, high, templates=templates)


@given(st.floats(-1, 1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_longer_list_is_never_a_lower_rate(similarity: float, n: int, m: int) -> None:
    short, long = sorted((n, m))
    assert rate_at(TABLE, similarity, templates=short) <= rate_at(TABLE, similarity, templates=long)


@given(st.floats(-1, 1), st.integers(0, 10**6))
def test_the_interval_holds_the_estimate(similarity: float, templates: int) -> None:
    low, high = interval_at(TABLE, similarity, templates=templates)
    assert 0 <= low <= rate_at(TABLE, similarity, templates=templates) <= high <= 1


def test_a_list_of_n_is_wrong_n_times_as_often_when_that_is_rare() -> None:
    one, many = (rate_at(TABLE, 0.7, templates=n) for n in (1, 1000))
    assert many == pytest.approx(1000 * one, rel=1e-4)
    assert one == pytest.approx(1e-4 * math.exp(-40 * 0.2))


def test_an_empty_list_alerts_nobody() -> None:
    assert rate_at(TABLE, -1.0, templates=0) == 0.0


def test_the_floor_is_kept() -> None:
    assert threshold_for(TABLE, templates=1, fpir=0.5, floor=0.45) == 0.45


def test_a_rate_too_far_below_what_was_measured_is_refused_with_the_numbers() -> None:
    poor = FalseMatch(
        similarity=(0.0, 0.5),
        rate=(0.5, 1e-2),
        tail_similarity=0.5,
        tail_rate=1e-2,
        tail_slope=40.0,
        probes=20,
        comparisons=2000,
        source="made up",
    )
    with pytest.raises(ThresholdError, match=r"10000 templates at 1 in 6,000 false alerts.*2000"):
        threshold_for(poor, templates=10_000, fpir=1 / 6000, floor=0.3)


def test_a_threshold_beyond_one_is_refused() -> None:
    blunt = FalseMatch((0.0, 0.5), (0.5, 0.1), 0.5, 0.1, 5.0, 10**5, 10**9, "made up")
    with pytest.raises(ThresholdError, match="no cosine up to 1"):
        threshold_for(blunt, templates=10_000, fpir=1e-3, floor=0.3)


def test_people_who_share_comparisons_make_the_estimate_less_certain() -> None:
    told = replace(TABLE, tail_slope_error=8.0)
    _, independent = interval_at(TABLE, 0.7, templates=100)
    _, dependent = interval_at(told, 0.7, templates=100)
    assert dependent > 2 * independent
    with pytest.raises(ThresholdError, match=f"at most {MAX_UNCERTAINTY:g} is allowed"):
        threshold_for(told, templates=10_000, fpir=1 / 6000, floor=0.3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"templates": 0}, "0 templates"),
        ({"fpir": 0.0}, "rate of 0.0"),
        ({"fpir": 1.0}, "rate of 1.0"),
        ({"fpir": math.nan}, "rate of nan"),
        ({"floor": 1.5}, "floor of 1.5"),
    ],
)
def test_numbers_out_of_bounds_are_named(changes: dict[str, float], named: str) -> None:
    arguments = {"templates": 10, "fpir": 0.01, "floor": 0.3} | changes
    with pytest.raises(ThresholdError, match=named):
        threshold_for(TABLE, **arguments)  # type: ignore[arg-type]  # wrong values are the point


def test_a_fit_finds_the_tail_that_made_the_scores() -> None:
    table = fit(histogram(stranger_scores(1_000_000)), probes=1000, source="made up")
    assert table.comparisons == 1_000_000
    assert table.tail_slope == pytest.approx(30, rel=0.15)
    for similarity in (0.1, 0.2, 0.3):
        assert rate_at(table, similarity, templates=1) == pytest.approx(
            math.exp(-30 * similarity), rel=0.1
        )
    low, high = interval_at(table, 0.5, templates=1)
    assert low < math.exp(-30 * 0.5) < high


def test_the_interval_of_a_fit_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(100):
        table = fit(histogram(stranger_scores(20_000, seed)), probes=100, source="made up")
        low, high = interval_at(table, 0.4, templates=1)  # ten times rarer than anything seen
        held += low < math.exp(-30 * 0.4) < high
    assert held >= 88


def test_parts_of_a_histogram_add_up() -> None:
    scores = stranger_scores(1000) - 0.1
    whole = histogram(scores)
    assert np.array_equal(whole, histogram(scores[:300]) + histogram(scores[300:]))
    assert histogram(np.array([-1.0, 1.0, 1.0000001, -1.0000001])).sum() == 4


def test_too_few_comparisons_are_refused() -> None:
    with pytest.raises(ThresholdError, match="100 comparisons"):
        fit(histogram(stranger_scores(100)), probes=10, source="made up")
