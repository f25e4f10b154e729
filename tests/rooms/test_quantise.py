import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.types import ModelSpec, Tensor, TensorSpec
from appliance.vision.quantise import dequantise, quantise, table

PIXELS = np.arange(256 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3)


def model(mean: float, std: float, scale: float, zero_point: int, dtype: str = "int8") -> ModelSpec:
    tensor = TensorSpec("in", (1, 16, 16, 3), dtype, scale, zero_point)
    return ModelSpec("m", "embedder", "m@0", "0", mean, std, tensor, ())


def quantised(spec: ModelSpec) -> Tensor:
    out: Tensor = np.zeros(spec.input.shape, spec.input.dtype)
    quantise(PIXELS, spec, out)
    return np.squeeze(out, axis=0)


@pytest.mark.parametrize(
    "spec",
    [
        model(0.0, 1.0, 1.0, -128),  # the detector
        model(127.5, 128.0, 0.0078125, -1),  # the embedder: every value falls on a half
        model(127.5, 128.0, 0.0078125, 0),
        model(127.5, 127.5, 1 / 127.5, 0),
        model(0.0, 255.0, 1 / 255, 0, "uint8"),
        model(0.0, 1.0, 2.0, -128),
    ],
)
def test_a_pixel_is_off_by_half_a_step_at_most(spec: ModelSpec) -> None:
    wanted = (PIXELS.astype(float) - spec.pixel_mean) / spec.pixel_std
    limits = np.iinfo(spec.input.dtype)
    low, high = (spec.input.scale * (n - spec.input.zero_point) for n in (limits.min, limits.max))
    found = dequantise(quantised(spec), spec.input)
    error = np.abs(found - np.clip(wanted, low, high))
    assert error.max() <= spec.input.scale * (0.5 + 1e-3)


def test_neighbouring_pixel_values_stay_apart_where_every_value_is_a_half() -> None:
    spec = model(127.5, 128.0, 0.0078125, -1)
    assert len(np.unique(quantised(spec))) == 256


def test_the_fast_way_equals_the_table() -> None:
    spec = model(0.0, 1.0, 1.0, -128)
    by_table = table(spec.pixel_mean, spec.pixel_std, spec.input)[PIXELS].view(np.int8)
    assert np.array_equal(quantised(spec), by_table)


@given(
    scale=st.floats(1e-4, 10.0),
    zero_point=st.integers(-128, 127),
    level=st.integers(-128, 127),
)
def test_dequantising_follows_the_definition(scale: float, zero_point: int, level: int) -> None:
    spec = TensorSpec("out", (1,), "int8", scale, zero_point)
    real = dequantise(np.array([level], np.int8), spec)
    assert real.dtype == np.float32
    assert real[0] == pytest.approx(scale * (level - zero_point), rel=1e-6)
