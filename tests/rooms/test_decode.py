import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from appliance.types import Tensor, TensorSpec
from appliance.vision.decode import MAX_CANDIDATES, Detections, decode, suppress

HEIGHT, WIDTH = 24, 40
SPECS = (
    TensorSpec("heatmap", (1, HEIGHT, WIDTH, 1), "int8", 1 / 256, -128),
    TensorSpec("scale", (1, HEIGHT, WIDTH, 2), "int8", 0.02, 0),
    TensorSpec("offset", (1, HEIGHT, WIDTH, 2), "int8", 0.01, 0),
    TensorSpec("landmarks", (1, HEIGHT, WIDTH, 10), "int8", 0.01, 0),
)


def maps() -> tuple[npt.NDArray[np.int8], ...]:
    heat, scale, offset, landmarks = (np.zeros(spec.shape, np.int8) for spec in SPECS)
    heat.fill(-128)
    return heat, scale, offset, landmarks


def found(outputs: tuple[Tensor, ...], min_score: float = 0.5, max_faces: int = 32) -> Detections:
    return decode(outputs, SPECS, min_score=min_score, max_faces=max_faces)


def test_one_cell_becomes_one_box_with_its_landmarks() -> None:
    heat, scale, offset, landmarks = maps()
    heat[0, 10, 20, 0] = 64  # (64 + 128) / 256 = 0.75
    scale[0, 10, 20] = (100, 50)  # exp(2) * 4 high, exp(1) * 4 wide
    offset[0, 10, 20] = (25, -25)  # y, x
    landmarks[0, 10, 20] = (30, 20, 30, 80, 50, 50, 80, 30, 80, 70)  # y, x of each
    faces = found((heat, scale, offset, landmarks))
    height, width = np.exp(2.0) * 4, np.exp(1.0) * 4
    x, y = (20 - 0.25 + 0.5) * 4, (10 + 0.25 + 0.5) * 4
    corner = np.array([x - width / 2, y - height / 2])
    assert faces.scores == pytest.approx([0.75])
    assert faces.boxes[0] == pytest.approx([*corner, x + width / 2, y + height / 2], rel=1e-5)
    size = np.array([width, height])
    assert faces.landmarks[0, 0] == pytest.approx(corner + (0.2, 0.3) * size, rel=1e-5)
    assert faces.landmarks[0, 4] == pytest.approx(corner + (0.7, 0.8) * size, rel=1e-5)


def test_the_least_score_is_kept_and_less_is_not() -> None:
    outputs = maps()
    outputs[0][0, 5, 5, 0] = 0  # exactly 0.5
    outputs[0][0, 15, 25, 0] = -1
    assert found(outputs).scores == pytest.approx([0.5])


def test_no_face_is_no_face() -> None:
    faces = found(maps())
    assert faces.boxes.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)


def test_the_shoulder_of_a_peak_is_not_a_second_face() -> None:
    outputs = maps()
    outputs[0][0, 5, 5:8, 0] = (80, 100, 80)
    outputs[1][0, 5, 5:8] = -60  # boxes so small that they do not overlap
    assert len(found(outputs).scores) == 1


def test_best_score_comes_first_and_the_number_is_bounded() -> None:
    outputs = maps()
    for column, level in ((4, 20), (16, 100), (28, 60)):
        outputs[0][0, 12, column, 0] = level
    scores = found(outputs, max_faces=2).scores
    assert scores == pytest.approx([228 / 256, 188 / 256])


def test_a_heat_map_that_glows_everywhere_is_bounded() -> None:
    outputs = maps()
    outputs[0].fill(127)
    outputs[1].fill(-128)
    faces = found(outputs, max_faces=10_000)
    assert len(faces.scores) == MAX_CANDIDATES


def iou(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return float(shared / (area_a + area_b - shared))


BOXES = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 25), st.just(4)), elements=st.floats(1, 60, width=32)
).map(lambda a: np.concatenate([a[:, :2], a[:, :2] + a[:, 2:]], axis=1))


@given(boxes=BOXES, bound=st.floats(0.1, 0.9))
def test_suppression_keeps_boxes_that_do_not_overlap_and_drops_only_those_that_do(
    boxes: npt.NDArray[np.float32], bound: float
) -> None:
    kept = suppress(boxes, max_overlap=bound, most=100).tolist()
    assert kept == sorted(set(kept))
    for index in range(len(boxes)):
        overlaps = [iou(boxes[index], boxes[k]) for k in kept if k < index]
        if index in kept:
            assert all(overlap <= bound + 1e-4 for overlap in overlaps)
        else:
            assert any(overlap > bound - 1e-4 for overlap in overlaps)
