"""Which part of a face is hidden, and taking it out of the picture."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.vision.align import TEMPLATE
from appliance.vision.occlusion import FILLED_WITH, PARTS, Part, area, fill


@pytest.mark.parametrize("part", PARTS)
def test_what_is_filled_no_longer_depends_on_what_was_there(part: Part) -> None:
    rng = np.random.default_rng(1)
    crop = rng.integers(0, 256, (112, 112, 3), np.uint8)
    other = crop.copy()
    other[area(part)] = rng.integers(0, 256, (int(area(part).sum()), 3), np.uint8)
    fill(crop, part)
    fill(other, part)
    assert np.array_equal(crop, other)
    assert (crop[area(part)] == FILLED_WITH).all()


@pytest.mark.parametrize("part", PARTS)
def test_what_is_open_is_left(part: Part) -> None:
    crop = np.random.default_rng(2).integers(0, 256, (112, 112, 3), np.uint8)
    before = crop.copy()
    fill(crop, part)
    assert np.array_equal(crop[~area(part)], before[~area(part)])


def test_several_crops_are_filled_at_once() -> None:
    crops = np.zeros((3, 112, 112, 3), np.uint8)
    fill(crops, "eyes")
    assert (crops[:, area("eyes")] == FILLED_WITH).all()
    assert not crops[:, ~area("eyes")].any()


def test_each_part_lies_where_its_landmarks_do() -> None:
    eyes, nose, mouth = TEMPLATE[:2], TEMPLATE[2], TEMPLATE[3:]

    def covered(part: Part, points: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> bool:
        columns, rows = np.rint(points).astype(int).T
        return bool(area(part)[rows, columns].all())

    assert covered("lower", mouth)
    assert covered("lower", nose[None])
    assert not covered("lower", eyes)
    assert covered("eyes", eyes)
    assert not covered("eyes", mouth)
    assert not covered("eyes", nose[None])
    assert not any(covered("upper", points) for points in (eyes, mouth, nose[None]))


@pytest.mark.parametrize("part", PARTS)
def test_enough_of_the_face_stays_open(part: Part) -> None:
    assert 0.15 < area(part).mean() < 0.5
