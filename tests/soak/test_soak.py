"""A sample of `make soak`: twenty kills, a few cut cables, and every alert counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.soak import Soak


@pytest.mark.slow
def test_kill_9_of_watch_link_and_controller_loses_nothing_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    soak = Soak(tmp_path, seed=7, rate=40.0, say=lambda _: None)
    try:
        soak.part("kills", lambda: soak.kill_at_random(20))
    finally:
        soak.close()
    tally = soak.parts[0].tally
    assert tally.good
    assert tally.answered >= 30
