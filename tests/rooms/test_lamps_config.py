"""The [lamps] table of node.toml."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from appliance.config import Lamps


def lamps(**table: Any) -> Lamps:
    return msgspec.convert(table, Lamps)


def test_the_defaults_are_three_pins_and_text() -> None:
    default = lamps()
    assert default.driver == "terminal"
    assert (default.camera.bcm, default.status.bcm, default.alert.bcm) == (17, 27, 22)


def test_a_lamp_has_a_pin_a_polarity_and_a_colour() -> None:
    told = lamps(driver="gpio", status={"bcm": 5, "active_low": True, "colour": "blue"})
    assert (told.status.bcm, told.status.active_low, told.status.colour) == (5, True, "blue")
    assert told.camera.active_low is False


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"camera": {"bcm": 22}}, "camera and alert are both on BCM 22"),
        ({"status": {"bcm": 4}, "alert": {"bcm": 4}}, "status and alert are both on BCM 4"),
        ({"status": {"bcm": 28}}, r"<= 27 - at `\$\.status\.bcm`"),
        ({"status": {"bcm": 1}}, r">= 2 - at `\$\.status\.bcm`"),
        ({"status": {"colour": "red"}}, "bcm"),
        ({"status": {"bcm": 4, "colour": "mauve"}}, "mauve"),
        ({"driver": "smoke signals"}, "smoke signals"),
        ({"lamp": {"bcm": 4}}, "lamp"),
    ],
)
def test_refuses(table: dict[str, Any], says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        lamps(**table)
