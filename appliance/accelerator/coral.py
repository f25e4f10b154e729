"""A model on a Coral Edge TPU: the TensorFlow Lite runtime with libedgetpu as its delegate.

Written from the documentation of libedgetpu and the runtime; it has not run on hardware yet. The
contract test is tests/contracts/test_accelerator.py with the marker `coral`. What the Edge TPU
keeps of a model's layers in its own memory stays there until its next run.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from appliance.accelerator import versions
from appliance.accelerator.manifest import ModelFile
from appliance.accelerator.tflite import TfliteAccelerator, first_line, runtime
from appliance.errors import AcceleratorError, ModelError

LIBRARY = "libedgetpu.so.1"

_PCIE = Path("/dev/apex_0")
_USB = Path("/sys/bus/usb/devices")
_USB_IDS = frozenset({("1a6e", "089a"), ("18d1", "9302")})
"""Vendor and product before and after the library has loaded the device's firmware."""


def attached(*, pcie: Path = _PCIE, usb: Path = _USB) -> str | None:
    """The delegate's name of a Coral that is plugged in: "pci", "usb" or None.

    Args:
        pcie: device node of the PCIe driver.
        usb: sysfs folder of USB devices.
    """
    if pcie.exists():
        return "pci"
    for vendor in usb.glob("*/idVendor"):
        try:
            found = tuple(
                path.read_text(encoding="ascii", errors="replace").strip()
                for path in (vendor, vendor.with_name("idProduct"))
            )
        except OSError:  # unplugged while we looked
            continue
        if found in _USB_IDS:
            return "usb"
    return None


def open_coral(model: ModelFile, *, device: str, forced: bool = False) -> TfliteAccelerator:
    """The model's twin for the Edge TPU, on that device.

    Args:
        model: must have a `coral` file in the manifest.
        device: "usb" or "pci", with ":0" and so on where there are several.
        forced: use a pair of runtime and delegate that is not known to work.

    Raises:
        ModelError: there is no such file, or it is not what the manifest says.
        AcceleratorError: the library is missing or does not fit the runtime, or no device.
    """
    if model.coral is None:
        raise ModelError(f"{model.spec.name}: the manifest has no file for a Coral")
    versions.check_coral(versions.runtime(), versions.edgetpu(), forced=forced)
    # What the Edge TPU cannot do would fall to one CPU thread: the compiled twin has nothing such.
    return TfliteAccelerator(model, threads=1, file=model.coral, delegate=_delegate(device))


def _delegate(device: str) -> Any:  # noqa: ANN401 - the runtime has no types
    try:
        # First by ourselves: without the library, the runtime's own loader leaves a half-made
        # object behind, whose end prints a traceback of its own.
        ctypes.CDLL(LIBRARY)
        return runtime().load_delegate(LIBRARY, {"device": device})
    except OSError as e:
        raise AcceleratorError(f"{LIBRARY} cannot be loaded: {first_line(e)}") from e
    except (ValueError, RuntimeError) as e:  # what load_delegate raises without a device
        raise AcceleratorError(
            f"{LIBRARY} finds no Coral at '{device}', or it is in use: {first_line(e)}"
        ) from e
