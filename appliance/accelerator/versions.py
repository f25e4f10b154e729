"""Which versions of runtime, delegate, driver and library are here, and which of them fit.

Pure but for reading files: what is asked of a vendor's library is asked in its driver.
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from appliance.errors import AcceleratorError

DPKG_STATUS = Path("/var/lib/dpkg/status")
HAILO_DRIVER = Path("/sys/module/hailo_pci/version")
RUNTIME_PACKAGES = ("ai-edge-litert", "tflite-runtime")
EDGETPU_PACKAGES = ("libedgetpu1-std", "libedgetpu1-max")

CORAL_PROVEN = frozenset({("tflite-runtime 2.17.1", "16.0TF2.17.1-1")})
"""(runtime, delegate's package) that somebody has seen working. The delegate is built against one
TensorFlow's internals: another's may not be refused by the loader, but end the process at the first
inference, which no `except` catches. So only what is proven is tried unasked."""

_FROZEN = re.compile(r"\A\d+(\.\d+)*(-\d+)?\Z")
"""Google's own builds (last: 16.0 of 2021) name no TensorFlow; the later ones of feranick do."""


def runtime() -> str | None:
    """The TensorFlow Lite runtime's package and version; None if there is none."""
    for package in RUNTIME_PACKAGES:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def edgetpu(status: Path = DPKG_STATUS) -> str | None:
    """Debian's version of libedgetpu; None if it was not installed as a package."""
    try:
        paragraphs = status.read_text(encoding="utf-8", errors="replace").split("\n\n")
    except OSError:
        return None
    for paragraph in paragraphs:
        fields = dict(
            line.split(": ", 1) for line in paragraph.split("\n") if re.match(r"[A-Z]\S*: ", line)
        )
        installed = fields.get("Status", "").endswith(" installed")
        if installed and fields.get("Package") in EDGETPU_PACKAGES:
            return fields.get("Version")
    return None


def check_coral(runtime: str | None, delegate: str | None, *, forced: bool) -> None:
    """Refuse a pair that is known to crash, or that nobody is known to have tried.

    Args:
        runtime: as `runtime` says.
        delegate: as `edgetpu` says.
        forced: try it nevertheless.

    Raises:
        AcceleratorError: the pair is refused; says what to install.
    """
    if forced or (runtime, delegate) in CORAL_PROVEN:
        return
    pair = f"libedgetpu {delegate or 'of unknown version'} with {runtime or 'no runtime'}"
    why = "is not known to work"
    if delegate is not None and _FROZEN.match(delegate):
        why = "is known to crash: Google's own builds ended in 2021"
    proven = ", ".join(f"libedgetpu {d} with {r}" for r, d in sorted(CORAL_PROVEN))
    raise AcceleratorError(f"{pair} {why}; proven: {proven} (models.force tries it nevertheless)")


def hailo_driver(path: Path = HAILO_DRIVER) -> str | None:
    """Version of the Hailo kernel module; None if it is not loaded."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None


def check_hailo(library: str, driver: str | None, *, forced: bool) -> None:
    """Refuse a driver that is not of the library's version: HailoRT wants them equal.

    Args:
        library: hailo_platform.__version__.
        driver: as `hailo_driver` says.
        forced: try it nevertheless.

    Raises:
        AcceleratorError: they differ, or there is no driver.
    """
    if driver is None:
        raise AcceleratorError("the hailo_pci driver is not loaded: install hailort-pcie-driver")
    if driver != library and not forced:
        raise AcceleratorError(
            f"hailo_platform {library} with driver {driver}: both must have the same version"
            " (models.force tries it nevertheless)"
        )
