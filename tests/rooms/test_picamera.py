"""What of the Pi's camera needs no Pi: its buffers and its numbering."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.camera.picamera import Numbering, unpack

SIZE = (32, 20)


def picture(seed: int = 0) -> np.ndarray:
    """A smooth one, so that halved chroma keeps it."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.ascontiguousarray(cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC))


@given(padding=st.integers(0, 70), tail=st.integers(0, 5000))
def test_rows_are_unpadded_byte_for_byte(padding: int, tail: int) -> None:
    rgb = picture()
    height, width = rgb.shape[:2]
    stride = width * 3 + padding
    buffer = np.full(height * stride + tail, 255, np.uint8)
    buffer[: height * stride].reshape(height, stride)[:, : width * 3] = rgb.reshape(height, -1)
    into = np.zeros_like(rgb)
    unpack(buffer, stride, "BGR888", into)
    assert np.array_equal(into, rgb)


@pytest.mark.parametrize("padding", [0, 32])
def test_nv12_becomes_rgb(padding: int) -> None:
    rgb = picture(1)
    height, width = rgb.shape[:2]
    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)  # (height * 3 / 2, width)
    luma, chroma = i420[:height], i420[height:].reshape(2, -1)
    nv12 = np.concatenate([luma.ravel(), chroma.T.ravel()]).reshape(height * 3 // 2, width)
    buffer = np.zeros((height * 3 // 2, width + padding), np.uint8)
    buffer[:, :width] = nv12
    into = np.zeros_like(rgb)
    unpack(buffer.ravel(), width + padding, "NV12", into)
    assert np.array_equal(into, cv2.cvtColor(i420, cv2.COLOR_YUV2RGB_I420))


@pytest.mark.parametrize(("size", "stride"), [(1919, 96), (1920, 95), (0, 96)])
def test_a_buffer_that_is_too_short_is_refused(size: int, stride: int) -> None:
    into = np.zeros((20, 32, 3), np.uint8)
    with pytest.raises(OSError, match="holds no 32 x 20 BGR888"):
        unpack(np.zeros(size, np.uint8), stride, "BGR888", into)


def test_missed_periods_are_counted_and_jitter_is_not() -> None:
    numbering = Numbering(period_ns=100)
    exposures = [1000, 1103, 1198, 1500, 1600]
    assert [numbering.next(boot_ns) for boot_ns in exposures] == [0, 1, 2, 5, 6]
    assert numbering.dropped == 2


@given(gaps=st.lists(st.integers(1, 10**10), max_size=30))
def test_numbers_always_grow_and_account_for_every_period(gaps: list[int]) -> None:
    numbering, now_ns = Numbering(period_ns=66_666_667), 0
    numbers = [numbering.next(now_ns)]
    for gap in gaps:
        now_ns += gap
        numbers.append(numbering.next(now_ns))
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] == len(gaps) + numbering.dropped
