import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.vision.letterbox import PADDING, Letterbox

SIDES = st.integers(32, 400)


def test_a_720p_picture_is_halved_into_the_corner() -> None:
    box = Letterbox(source=(1280, 720), target=(640, 384))
    canvas = box.fit(np.full((720, 1280, 3), 200, np.uint8))
    assert canvas.shape == (384, 640, 3)
    assert np.all(canvas[:360] == 200)
    assert np.all(canvas[360:] == PADDING)


@settings(max_examples=50)
@given(source=st.tuples(SIDES, SIDES), target=st.tuples(SIDES, SIDES), seed=st.integers(0, 2**16))
def test_a_point_comes_back_within_a_pixel_of_the_canvas(
    source: tuple[int, int], target: tuple[int, int], seed: int
) -> None:
    """A bright block drawn in the picture is found on the canvas and mapped back."""
    rng = np.random.default_rng(seed)
    box = Letterbox(source=source, target=target)
    zoom = max(source[0] / target[0], source[1] / target[1])
    side = min(*source, max(4, int(4 * zoom)))
    x = int(rng.integers(0, source[0] - side + 1))
    y = int(rng.integers(0, source[1] - side + 1))
    image = np.zeros((source[1], source[0], 3), np.uint8)
    image[y : y + side, x : x + side] = 255
    rows, columns = np.nonzero(box.fit(image)[:, :, 0] > 127)
    corners = np.array(
        [[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]], np.float32
    )
    back = box.to_source(corners)
    # One pixel of whichever of the two grids is coarser.
    assert back == pytest.approx(np.array([[x, y], [x + side, y + side]]), abs=max(1.0, zoom) + 0.1)


def test_the_canvas_is_reused_and_wiped() -> None:
    box = Letterbox(source=(64, 64), target=(32, 32))
    first = box.fit(np.full((64, 64, 3), 9, np.uint8))
    assert box.fit(np.full((64, 64, 3), 90, np.uint8)) is first
    box.wipe()
    assert not first.any()


def test_refuses_a_picture_of_another_size() -> None:
    box = Letterbox(source=(64, 48), target=(32, 32))
    with pytest.raises(ValueError, match="48x64, expected 64x48"):
        box.fit(np.zeros((64, 48, 3), np.uint8))
