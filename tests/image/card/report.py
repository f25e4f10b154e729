"""What held and what did not, and what was measured on the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path


class Report:
    """Points, a line each, as they are found."""

    def __init__(self) -> None:
        self.points: dict[str, dict[str, object]] = {}

    def point(self, name: str, *, so: bool, seen: object) -> None:
        """Note a point.

        Args:
            name: what was to be seen, in words.
            so: whether it was.
            seen: what was there instead, or the figures.
        """
        self.points[name] = {"held": so, "seen": seen}
        sys.stdout.write(f"{'ok  ' if so else 'NOT '} {name}: {seen}\n")
        sys.stdout.flush()

    def progress(self, what: str) -> None:
        """Say how far it is, where a point takes many minutes."""
        sys.stdout.write(f"     {what}\n")
        sys.stdout.flush()

    @property
    def wrong(self) -> list[str]:
        """Points that did not hold."""
        return [name for name, point in self.points.items() if not point["held"]]

    def write(self, path: Path) -> None:
        """All of it, as JSON; points of earlier runs that this one did not look at stay."""
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps(before | self.points, indent=1) + "\n", encoding="utf-8")
