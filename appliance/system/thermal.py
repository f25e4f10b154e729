"""How hot the chip is, and whether the firmware slows it down: a Raspberry Pi's sysfs, read.

Enters: files below a root. Leaves: a Thermal. Whether that is too hot is health.py's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SYS = Path("/sys")

_ZONES = "class/thermal/thermal_zone*"
_CHIP = frozenset({"cpu-thermal", "cpu_thermal", "soc-thermal", "x86_pkg_temp"})
"""Zone types of the chip itself: a Pi's (its name has a dash or an underscore, by kernel), then a
generic board's and a PC's, so that a developer sees something, too."""
_THROTTLED = "devices/platform/soc*/soc*firmware/get_throttled"
"""The firmware's word, hexadecimal. Source of the bits: Raspberry Pi's page on vcgencmd."""
_UNDER_VOLTAGE, _CAPPED, _THROTTLING, _SOFT_LIMIT = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_EVER = 16
"""The same bits, so many places higher, stay set since boot."""


@dataclass(frozen=True, slots=True)
class Thermal:
    """One look.

    Attributes:
        celsius: of the chip; None where no sensor says.
        throttled: the firmware slows the chip down now, because of heat.
        under_voltage: the supply is too weak now.
        was_under_voltage: it was at some time since boot.
    """

    celsius: float | None = None
    throttled: bool = False
    under_voltage: bool = False
    was_under_voltage: bool = False


def read(root: Path = SYS) -> Thermal:
    """Look once.

    A file that there is not, or that cannot be read as a number, tells nothing: a PC has none
    of them, and a sensor that is being initialised answers with an error.

    Args:
        root: where sysfs is; tests have their own.
    """
    bits = _throttled(root)
    return Thermal(
        celsius=_celsius(root),
        throttled=bool(bits & (_CAPPED | _THROTTLING | _SOFT_LIMIT)),
        under_voltage=bool(bits & _UNDER_VOLTAGE),
        was_under_voltage=bool(bits >> _EVER & _UNDER_VOLTAGE),
    )


def _celsius(root: Path) -> float | None:
    """The hottest of the chip's zones."""
    zones = [zone for zone in root.glob(_ZONES) if _text(zone / "type") in _CHIP]
    found = [_number(_text(zone / "temp"), base=10) for zone in zones]
    return max((n / 1000 for n in found if n is not None), default=None)


def _throttled(root: Path) -> int:
    for path in root.glob(_THROTTLED):
        bits = _number(_text(path), base=16)
        if bits is not None:
            return bits
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(text: str, *, base: int) -> int | None:
    try:
        return int(text, base)
    except ValueError:
        return None
