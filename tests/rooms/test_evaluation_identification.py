import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from appliance.evaluation.compare import NOBODY, Gallery
from appliance.evaluation.groups import break_down
from appliance.evaluation.identification import Bootstrap, Trials, fpir, threshold_at, tpir
from appliance.evaluation.persons import fused, mean
from appliance.evaluation.verification import verify
from appliance.tracking.evidence import Evidence


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def people(count: int, each: int, spread: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of people: each one's pictures lie about a direction of their own."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.standard_normal((count, 32)), each, axis=0)
    return unit(centres + spread * rng.standard_normal(centres.shape)), np.repeat(
        np.arange(count), each
    )


def trials_of(mated: np.ndarray, nonmated: np.ndarray, each: int = 1) -> Trials:
    return Trials(
        mated=mated,
        mated_subject=np.arange(len(mated)) // each,
        nonmated=nonmated,
        nonmated_subject=np.arange(len(nonmated)) // each,
    )


def test_each_probe_gets_its_own_and_the_best_other_score() -> None:
    templates = unit(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0.8, 0.6]]))
    gallery = Gallery(templates, np.array([7, 3, 3]))
    probes = unit(np.array([[1.0, 0.1, 0], [0, 1, 0], [0, 0, 1]]))
    found = gallery.compare(probes, np.array([7, 7, NOBODY]))
    assert found.own == pytest.approx([probes[0, 0], 0.0, -np.inf])
    assert found.other == pytest.approx([probes[0, 1], 1.0, 0.6], abs=1e-6)
    assert found.nearest.tolist() == [3, 3, 3]
    assert found.rank_one.tolist() == [True, False, False]


def test_a_probe_without_a_face_scores_below_every_threshold() -> None:
    gallery = Gallery(unit(np.eye(3)), np.arange(3))
    found = gallery.compare(np.full((1, 3), np.nan, np.float32), np.array([0]))
    assert (found.own[0], found.other[0], found.nearest[0]) == (-np.inf, -np.inf, NOBODY)


def test_searching_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, whose = people(40, 3, 0.5)
    gallery = Gallery(vectors[::3], whose[::3])
    whole = gallery.compare(vectors, whose)
    monkeypatch.setattr("appliance.evaluation.compare._BLOCK_SCORES", 100)
    parts = gallery.compare(vectors, whose)
    assert np.allclose(whole.own, parts.own)
    assert np.allclose(whole.other, parts.other)
    assert np.array_equal(whole.nearest, parts.nearest)


@given(
    hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1, 1)),
    st.floats(0, 0.999),
)
def test_the_threshold_for_a_rate_lets_no_more_through_and_is_the_lowest(
    scores: np.ndarray, rate: float
) -> None:
    trials = trials_of(np.zeros(1), scores)
    threshold = threshold_at(trials, rate)
    assert fpir(trials, threshold) <= rate + 1e-9
    below = scores[scores < threshold]
    if len(below):
        assert fpir(trials, float(below.max())) > rate - 1e-9


def test_rates_of_scores_whose_truth_is_known() -> None:
    trials = trials_of(np.arange(100) / 100, np.arange(1000) / 1000 - 0.5)
    threshold = threshold_at(trials, 0.01)
    assert threshold == pytest.approx(0.49, abs=2e-3)
    assert fpir(trials, threshold) == pytest.approx(0.01)
    assert tpir(trials, threshold) == pytest.approx(0.51, abs=0.011)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    truth, held = 0.9, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = (rng.random(400) < truth).astype(float)
        point = Bootstrap(trials_of(found, rng.random(50)), seed=seed, resamples=200).at_threshold(
            0.5
        )
        held += point.tpir.low <= truth <= point.tpir.high
    assert held >= 52


def test_pictures_of_one_person_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    alone = (rng.random(200) < 0.8).astype(float)
    many = np.repeat(alone, 10)
    one = Bootstrap(trials_of(alone, np.zeros(10)), seed=1).at_threshold(0.5).tpir
    ten = Bootstrap(trials_of(many, np.zeros(100), each=10), seed=1).at_threshold(0.5).tpir
    assert ten.subjects == one.subjects == 200
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.15)


def test_no_error_seen_is_not_no_error_possible() -> None:
    point = Bootstrap(trials_of(np.ones(50), np.zeros(300)), seed=1).at_threshold(0.5)
    assert point.fpir.high == pytest.approx(3 / 300)
    assert point.tpir.low == pytest.approx(1 - 3 / 50)


def test_a_rate_that_too_few_strangers_can_show_is_said_to_be_so() -> None:
    bootstrap = Bootstrap(trials_of(np.ones(5), np.zeros(100)), seed=1, resamples=10)
    assert not bootstrap.at_fpir(0.01).shown
    assert bootstrap.at_fpir(0.05).shown


def test_the_same_seed_gives_the_same_intervals() -> None:
    rng = np.random.default_rng(3)
    trials = trials_of(rng.random(100), rng.random(100))
    a, b = (Bootstrap(trials, seed=5, resamples=50).at_fpir(0.05) for _ in range(2))
    assert a == b


def test_fusing_is_what_the_node_does_with_a_track() -> None:
    vectors, _ = people(1, 5, 0.5)
    evidence = Evidence(32, 5)
    for vector in vectors:
        evidence.add(vector)
    assert np.allclose(mean(vectors), evidence.fuse(), atol=1e-6)


def test_only_people_with_enough_pictures_are_fused() -> None:
    vectors, whose = people(4, 3, 0.5)
    vectors[0] = np.nan
    probes, owners = fused(vectors, whose, pictures=3, seed=1)
    assert owners.tolist() == [1, 2, 3]
    probes, owners = fused(vectors, whose, pictures=2, seed=1, draws=4)
    assert owners.tolist() == [0] + [1] * 4 + [2] * 4 + [3] * 4
    assert np.allclose(np.linalg.norm(probes, axis=1), 1)


def test_verification_tells_people_apart_that_are_far_apart_and_no_others() -> None:
    easy = verify(*people(200, 4, 0.2), seed=1)
    rng = np.random.default_rng(1)
    hopeless = verify(unit(rng.standard_normal((800, 32))), np.repeat(np.arange(200), 4), seed=1)
    assert easy is not None
    assert easy.accuracy > 0.99
    assert easy.tar_at_far[0.01] == 1.0
    assert hopeless is not None
    assert hopeless.accuracy == pytest.approx(0.5, abs=0.03)
    assert hopeless.tar_at_far[0.01] == pytest.approx(0.01, abs=0.015)


def test_verification_needs_pairs_in_every_fold() -> None:
    assert verify(*people(9, 4, 0.2), seed=1) is None
    assert verify(*people(200, 1, 0.2), seed=1) is None


def test_a_group_that_is_missed_more_often_is_told_apart_and_an_equal_one_is_not() -> None:
    rng = np.random.default_rng(1)
    labels = np.array(["a", "b", "c"])[np.arange(600) % 3]
    chance = np.where(labels == "a", 0.6, 0.9)
    trials = trials_of((rng.random(600) < chance).astype(float), np.zeros(600))
    groups = break_down(
        "site",
        labels,
        labels,
        trials,
        threshold=0.5,
        bootstrap=Bootstrap(trials, seed=1, resamples=300),
    )
    told = {g.value: g for g in groups}
    assert told["a"].difference is not None
    assert told["a"].difference.clear
    assert told["a"].difference.value == pytest.approx(-0.3, abs=0.08)
    assert told["b"].difference is not None
    assert (
        "no false alert among 200 strangers: the true rate may still be 1.5%" in told["b"].warning
    )


def test_a_group_that_is_too_small_says_so() -> None:
    labels = np.array(["few"] * 5 + ["many"] * 95)
    trials = trials_of(np.ones(100), np.linspace(0, 1, 100))
    few, many = break_down(
        "site",
        labels,
        np.array(["many"] * 100),
        trials,
        threshold=0.5,
        bootstrap=Bootstrap(trials, seed=1, resamples=50),
    )
    assert "5 people on the list, fewer than 30" in few.warning
    assert "no strangers of this group" in few.warning
    assert few.fpir is None
    assert many.warning == ""
