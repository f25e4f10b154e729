"""No patience that a configuration may ask for looks like a hang to the watchdog."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from appliance.config import Camera, Link

UNITS = Path(__file__).resolve().parents[2] / "systemd"


def watchdog_s(unit: str) -> float:
    found = re.search(r"^WatchdogSec=(\d+)s$", (UNITS / unit).read_text(), re.MULTILINE)
    assert found
    return float(found[1])


@pytest.mark.parametrize(
    ("table", "key", "units"),
    [
        (Camera, "timeout_s", ["picket-watch.service"]),
        (Link, "answer_timeout_s", ["picket-watch.service", "picket-link.service"]),
    ],
)
def test_what_waits_as_long_as_the_watchdog_is_refused(
    table: type[Camera | Link], key: str, units: list[str]
) -> None:
    for unit in units:
        with pytest.raises(msgspec.ValidationError, match=key):
            msgspec.convert({key: watchdog_s(unit)}, table)
