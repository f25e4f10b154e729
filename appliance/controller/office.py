"""The plan in force: read from the store, and read again when its revision has moved."""

from __future__ import annotations

import threading

from appliance.controller.plan import Plan, read_plan
from appliance.controller.store import Store


class Office:
    """Thread-safe; `plan` may be read at any time and costs nothing.

    Args:
        store: is read at once.

    Attributes:
        plan: as of the last `refresh`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._revision = store.revision()
        self.plan: Plan = read_plan(store)

    def admits(self, node: str) -> bool:
        """Whether a node may connect and ask; a look-up in memory."""
        return self.plan.admits(node)

    def refresh(self) -> bool:
        """Take over what was ordered meanwhile, by this process or another.

        Returns:
            Whether there was anything.

        Raises:
            StoreError: the store cannot be read; the plan in force stays.
        """
        with self._lock:
            revision = self._store.revision()  # first: what comes after it is noticed next time
            if revision == self._revision:
                return False
            self.plan = read_plan(self._store)
            self._revision = revision
            return True
