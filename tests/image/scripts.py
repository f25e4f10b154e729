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
    """These, by name, for a while."""
    sys.path.insert(0, str(HERE))
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(HERE))
    for name in names:
        del sys.modules[name]
