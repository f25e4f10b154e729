"""`picketctl alerts --follow`: every alert is told once, however many come at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.controller.commands import alerts
from appliance.controller.sql import SqlStore
from appliance.controller.store import Arrival

BEGAN_MS = 1_790_000_000_000


class Paper:
    """What would be printed."""

    def __init__(self) -> None:
        self.sequences: list[object] = []

    def __call__(self, event: dict[str, object]) -> None:
        if event["event"] == "unreadable":
            self.sequences.append(event["sequence"])


def test_a_flood_does_not_hide_what_comes_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(10))

    def sleep(_: float) -> None:
        if next(looks, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(alerts, "_MOST", 3)
    monkeypatch.setattr("time.sleep", sleep)
    paper = Paper()
    with SqlStore(f"sqlite:///{tmp_path / 'fleet.db'}") as store:
        for sequence in range(1, 9):  # all of them within the overlap of two windows
            row = Arrival("cam-1", bytes(16), sequence, b"junk", None, "does not open")
            store.alerts.put([row], now_ms=BEGAN_MS + sequence)
        with pytest.raises(KeyboardInterrupt):
            alerts._follow(store.alerts, paper, set(), set(), BEGAN_MS)  # type: ignore[arg-type]  # prints nowhere
    assert paper.sequences == list(range(1, 9))
