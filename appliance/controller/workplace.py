"""What a command works on: the fleet folder, and the store that it names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.controller.fleet import Fleet
from appliance.controller.store import Store
from appliance.errors import StoreError

if TYPE_CHECKING:
    from appliance.controller.sql import SqlStore


def now_ms() -> int:
    """The wall clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def now() -> datetime:
    """The wall clock, with its zone."""
    return datetime.now(UTC)


@contextmanager
def workplace(folder: Path) -> Iterator[tuple[Fleet, Store]]:
    """An opened fleet and its store.

    Raises:
        IdentityError: the folder is no fleet.
        StoreError: the store cannot be opened.
    """
    fleet = Fleet.load(folder)
    with open_store(fleet) as store:
        yield fleet, store


def open_store(fleet: Fleet) -> SqlStore:
    """The store of a fleet: fleet.db in its folder, or the database that fleet.toml names.

    Raises:
        StoreError: it cannot be opened, or what it needs is not installed.
    """
    try:
        from appliance.controller.sql import SqlStore
    except ImportError as e:
        raise StoreError(f"the controller needs {e.name}: pip install 'picket[controller]'") from e
    return SqlStore(fleet.settings.store or f"sqlite:///{(fleet.folder / 'fleet.db').absolute()}")
