import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tracking.evidence import Evidence


def unit(rng: np.random.Generator, dim: int) -> np.ndarray:
    vector = rng.normal(size=dim).astype(np.float32)
    return vector / np.linalg.norm(vector)


@given(count=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_fused_vectors_are_their_mean_at_norm_one(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = np.stack([unit(rng, 192) for _ in range(count)]).astype(np.float32)
    evidence = Evidence(192, 5)
    for vector in vectors:
        evidence.add(vector)
    fused = evidence.fuse()
    assert fused.dtype == np.float32
    assert np.linalg.norm(fused) == pytest.approx(1.0, abs=1e-5)
    mean = vectors.mean(axis=0)
    assert fused == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_fusing_writes_where_asked() -> None:
    evidence = Evidence(4, 2)
    evidence.add(np.array([0, 1, 0, 0], np.float32))
    out = np.full(4, 9, np.float32)
    assert evidence.fuse(out) is out
    assert out.tolist() == [0, 1, 0, 0]


def test_wiping_leaves_zeros_and_an_empty_place() -> None:
    evidence = Evidence(8, 3)
    rng = np.random.default_rng(0)
    for _ in range(3):
        evidence.add(unit(rng, 8))
    evidence.wipe()
    assert not evidence._vectors.any()
    assert evidence.count == 0
    evidence.add(unit(rng, 8))
    assert evidence.count == 1


def test_the_callers_vector_is_copied() -> None:
    vector = np.array([1, 0], np.float32)
    evidence = Evidence(2, 1)
    evidence.add(vector)
    vector.fill(0)
    assert evidence.fuse().tolist() == [1, 0]


def test_vectors_that_cancel_out_are_refused() -> None:
    evidence = Evidence(2, 2)
    evidence.add(np.array([1, 0], np.float32))
    evidence.add(np.array([-1, 0], np.float32))
    with pytest.raises(ValueError, match="2 vectors cancel out"):
        evidence.fuse()


def test_refuses_more_than_it_holds() -> None:
    evidence = Evidence(2, 1)
    evidence.add(np.array([1, 0], np.float32))
    with pytest.raises(ValueError, match="full: 1 vectors"):
        evidence.add(np.array([1, 0], np.float32))


def test_refuses_a_vector_of_another_length() -> None:
    with pytest.raises(ValueError, match="shape"):
        Evidence(2, 1).add(np.array([1, 0, 0], np.float32))


def test_nothing_cannot_be_fused() -> None:
    with pytest.raises(ValueError, match="no evidence"):
        Evidence(2, 1).fuse()
