"""Which versions fit, which accelerators are plugged in, and a Hailo's two conversions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.accelerator import coral, versions
from appliance.accelerator.hailo import _dequantise, _quantise
from appliance.errors import AcceleratorError
from appliance.types import TensorSpec

DPKG = """Package: libedgetpu-dev
Status: install ok installed
Version: 1

Package: libedgetpu1-std
Status: {status}
Architecture: arm64
Version: 16.0TF2.17.1-1
Description: Edge TPU
 Version: 2 of a line that is none
"""


@pytest.mark.parametrize(
    ("status", "found"),
    [("install ok installed", "16.0TF2.17.1-1"), ("deinstall ok config-files", None)],
)
def test_the_delegates_version_is_debians(tmp_path: Path, status: str, found: str | None) -> None:
    path = tmp_path / "status"
    path.write_text(DPKG.format(status=status), encoding="utf-8")
    assert versions.edgetpu(path) == found


def test_without_packages_nothing_is_known(tmp_path: Path) -> None:
    assert versions.edgetpu(tmp_path / "none") is None
    assert versions.hailo_driver(tmp_path / "none") is None


def test_the_runtime_of_this_machine_is_named() -> None:
    runtime = versions.runtime()
    assert runtime is not None
    assert runtime.split()[0] in versions.RUNTIME_PACKAGES


def test_a_proven_pair_passes_and_everything_else_must_be_forced() -> None:
    versions.check_coral("tflite-runtime 2.17.1", "16.0TF2.17.1-1", forced=False)
    for runtime, delegate, says in (
        ("ai-edge-litert 2.3.0", "16.0TF2.19.1-1", "is not known to work"),
        ("ai-edge-litert 2.3.0", "16.0", "is known to crash"),
        ("tflite-runtime 2.14.0", "16.0-1", "is known to crash"),
        ("ai-edge-litert 2.3.0", None, "libedgetpu of unknown version with ai-edge-litert"),
        (None, None, "with no runtime"),
    ):
        with pytest.raises(AcceleratorError, match=says):
            versions.check_coral(runtime, delegate, forced=False)
        versions.check_coral(runtime, delegate, forced=True)


def test_a_hailos_driver_must_be_of_the_librarys_version(tmp_path: Path) -> None:
    path = tmp_path / "version"
    path.write_text("4.23.0\n", encoding="utf-8")
    versions.check_hailo("4.23.0", versions.hailo_driver(path), forced=False)
    with pytest.raises(AcceleratorError, match=r"4\.22\.0 with driver 4\.23\.0"):
        versions.check_hailo("4.22.0", "4.23.0", forced=False)
    versions.check_hailo("4.22.0", "4.23.0", forced=True)
    with pytest.raises(AcceleratorError, match="driver is not loaded"):
        versions.check_hailo("4.23.0", None, forced=True)


@pytest.mark.parametrize(
    ("ids", "found"),
    [(("1a6e", "089a"), "usb"), (("18d1", "9302"), "usb"), (("18d1", "4ee7"), None)],
)
def test_a_coral_is_known_by_its_usb_ids(
    tmp_path: Path, ids: tuple[str, str], found: str | None
) -> None:
    for place, (vendor, product) in {"1-1": ("1d6b", "0002"), "2-1": ids}.items():
        (tmp_path / place).mkdir()
        (tmp_path / place / "idVendor").write_text(f"{vendor}\n", encoding="ascii")
        (tmp_path / place / "idProduct").write_text(f"{product}\n", encoding="ascii")
    assert coral.attached(pcie=tmp_path / "apex_0", usb=tmp_path) == found


def test_a_coral_on_pcie_goes_first(tmp_path: Path) -> None:
    (tmp_path / "apex_0").touch()
    assert coral.attached(pcie=tmp_path / "apex_0", usb=tmp_path) == "pci"


@given(
    scale=st.floats(0.001, 10.0),
    zero_point=st.integers(-128, 127),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_a_hailo_is_given_comes_back_as_it_was(
    scale: float, zero_point: int, seed: int
) -> None:
    spec = TensorSpec("x", (1, 4, 3), "int8", scale, zero_point)
    tensor = np.random.default_rng(seed).integers(-128, 128, spec.shape).astype(np.int8)
    real = np.zeros((4, 1, 3), np.float32)  # a vendor's idea of the same shape
    _dequantise(tensor[0], spec, out=real)
    assert np.allclose(real.ravel(), (tensor.ravel() - float(zero_point)) * scale, rtol=1e-6)
    back = _quantise(real, spec)
    assert back.dtype == np.int8
    assert np.array_equal(back, tensor)


def test_what_a_hailo_gives_beyond_the_range_is_the_nearest() -> None:
    spec = TensorSpec("x", (1, 3), "uint8", 0.5, 10)
    real = np.array([-100.0, 0.0, 1000.0], np.float32)
    assert _quantise(real, spec).tolist() == [[0, 10, 255]]
