import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.vision.align import TEMPLATE, TEMPLATE_SIDE, align, alignable, similarity

MATRICES = st.builds(
    lambda scale, angle, x, y: (
        scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]),
        np.array([x, y]),
    ),
    st.floats(0.1, 10.0),
    st.floats(-np.pi, np.pi),
    st.floats(-2000.0, 2000.0),
    st.floats(-2000.0, 2000.0),
)


@given(move=MATRICES)
def test_a_similarity_is_recovered(move: tuple[np.ndarray, np.ndarray]) -> None:
    turn, shift = move
    landmarks = (TEMPLATE @ turn.T + shift).astype(np.float32)
    matrix = similarity(landmarks, TEMPLATE)
    back = landmarks @ matrix[:, :2].T + matrix[:, 2]
    # float32 holds a coordinate of 4,000 px to 0.0003 px, enlarged ten times on the way back.
    assert back == pytest.approx(TEMPLATE, abs=0.01)
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(1 / np.linalg.det(turn), rel=1e-2)


@given(seed=st.integers(0, 2**32 - 1))
def test_no_other_similarity_is_nearer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    landmarks = (TEMPLATE + rng.normal(0, 6, TEMPLATE.shape)).astype(np.float32)

    def error(matrix: np.ndarray) -> float:
        return float(np.sum((landmarks @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE) ** 2))

    best = similarity(landmarks, TEMPLATE)
    a, b, (x, y) = best[0, 0], best[1, 0], best[:, 2]
    for da, db, dx, dy in rng.normal(0, [0.01, 0.01, 1, 1], (8, 4)):
        other = np.array([[a + da, -b - db, x + dx], [b + db, a + da, y + dy]])
        assert error(best) <= error(other)


@pytest.mark.parametrize(
    "landmarks",
    [
        np.zeros((5, 2)),
        np.array([[i, 2 * i] for i in range(5)]),
        np.full((5, 2), np.nan),
        np.array([[np.inf, 0], [1, 0], [0, 1], [1, 1], [2, 1]]),
        np.full((5, 2), 3e38),
    ],
)
def test_points_that_are_no_face_are_refused(landmarks: np.ndarray) -> None:
    points = landmarks.astype(np.float32)
    assert not alignable(points)
    with pytest.raises(ValueError, match="not those of a face"):
        align(np.zeros((20, 20, 3), np.uint8), points)


@given(points=st.lists(st.floats(width=32), min_size=10, max_size=10))
def test_whatever_is_alignable_aligns(points: list[float]) -> None:
    landmarks = np.array(points, np.float32).reshape(5, 2)
    if alignable(landmarks):
        assert np.all(np.isfinite(similarity(landmarks, TEMPLATE)))


def test_a_face_already_in_place_is_copied() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    assert np.array_equal(align(picture, TEMPLATE), picture)


def test_the_crop_scales_with_its_side_and_is_written_where_asked() -> None:
    picture = np.zeros((400, 400, 3), np.uint8)
    picture[100:324, 100:324] = 255
    out = np.zeros((56, 56, 3), np.uint8)
    crop = align(picture, TEMPLATE * np.float32(2) + np.float32(100), side=56, out=out)
    assert crop is out
    assert crop[2:-2, 2:-2].min() == 255


def test_outside_the_picture_is_black() -> None:
    crop = align(np.full((112, 56, 3), 255, np.uint8), TEMPLATE)
    assert crop[:, :55].min() == 255
    assert not crop[:, 57:].any()


def test_refuses_a_buffer_of_another_size() -> None:
    with pytest.raises(ValueError, match="out has shape"):
        align(
            np.zeros((112, 112, 3), np.uint8),
            TEMPLATE,
            side=TEMPLATE_SIDE,
            out=np.zeros((56, 56, 3), np.uint8),
        )
