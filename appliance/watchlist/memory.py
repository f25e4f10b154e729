"""What the room needs of memory for open templates; system/secret.py has it, services/ hands it in.

Rooms do not know each other, so that what is kept in it, and how it is had, are told apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class SecretMemory(Protocol):
    """Zeroed memory that no other process can read."""

    @property
    def view(self) -> memoryview:
        """The memory, writable, one byte an item."""

    def wipe(self) -> None:
        """Overwrite it and let it go; arrays over it stay valid and show zeros."""


Allocate = Callable[[int], SecretMemory]
"""Makes secret memory of so many bytes, 1 or more."""
