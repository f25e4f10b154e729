"""How the watch service ends: everything is tried, whatever becomes of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.errors import AcceleratorError, CameraError
from appliance.services.watcher import Watcher


class Part:
    """Stands for any part: notes what is asked of it, and may fail at one thing."""

    def __init__(self, name: str, notes: list[str], failures: dict[str, Exception]) -> None:
        self._name, self._notes, self._failures = name, notes, failures

    def __getattr__(self, action: str) -> Any:
        def do(*_: object) -> str:
            what = f"{self._name} {action}"
            self._notes.append(what)
            if what in self._failures:
                raise self._failures[what]
            return "a frame"

        return do


@pytest.mark.parametrize(
    "failures",
    [
        {},
        {"watch close": AcceleratorError("gone")},
        {"watch close": AcceleratorError("gone"), "capture close": CameraError("gone, too")},
    ],
)
def test_a_node_whose_device_is_gone_still_erases_and_delivers(
    failures: dict[str, Exception],
) -> None:
    watcher, notes = Watcher.__new__(Watcher), list[str]()
    for name in ("watch", "capture", "slot", "trusted", "uplink", "pulse"):
        setattr(watcher, f"_{name}", Part(name, notes, failures))
    if failures:
        with pytest.raises((AcceleratorError, CameraError)):
            watcher._end()
    else:
        watcher._end()
    assert notes == [
        "watch close",
        "capture close",
        "slot get",
        "capture erase",
        "trusted wipe",
        "uplink flush",
        "pulse report",
    ]
