"""The image's build scripts as modules; they import each other by bare names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parents[2] / "image-build"


@contextmanager
def imported(*names: str) -> Iterator[dict[str, ModuleType]]:
    """These, by name, for a while; those that are there already stay the same ones."""
    new = [name for name in names if name not in sys.modules]
    sys.path.insert(0, str(HERE))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(HERE))
        for name in new:
            sys.modules.pop(name, None)


def lacks(*tools: str) -> bool:
    """Whether programs are missing; then a line names them, with their packages."""
    with imported("work") as found:
        work = found["work"]
        try:
            work.require(*tools)
        except work.BuildError as e:
            work.fail(e)
            return True
    return False
