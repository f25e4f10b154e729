"""Who is connected to a listening socket: bookkeeping alone, no socket in here.

A connection enters when a callback has let it in and leaves when it is closed, whoever closes it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

P = TypeVar("P")

PIPES_PER_NAME = 4
"""One in use; the others are left over from connections that broke, until that is noticed."""


@dataclass(slots=True)
class _Peer(Generic[P]):
    pipe: P
    name: str | None
    heard_s: float


class Peers(Generic[P]):
    """Connections by number and by name. Thread-safe; calls nothing while it holds its lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[int, _Peer[P]] = {}
        self._by_name: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def enter(self, number: int, pipe: P, name: str | None, now_s: float) -> list[P]:
        """A connection was let in.

        Args:
            number: its own, never used for another one while it lives.
            pipe: given back when the connection is to be closed.
            name: common name of its certificate, None where there is none.
            now_s: monotonic.

        Returns:
            The oldest connections of that name beyond PIPES_PER_NAME: to be closed.
        """
        with self._lock:
            self._by_id[number] = _Peer(pipe, name, now_s)
            if name is None:
                return []
            numbers = self._by_name.setdefault(name, [])
            numbers.append(number)
            return [self._by_id[old].pipe for old in numbers[:-PIPES_PER_NAME]]

    def leave(self, number: int) -> None:
        """A connection was closed; one that is not known is ignored."""
        with self._lock:
            peer = self._by_id.pop(number, None)
            if peer is None or peer.name is None:
                return
            numbers = self._by_name[peer.name]
            numbers.remove(number)
            if not numbers:
                del self._by_name[peer.name]

    def hear(self, number: int, now_s: float) -> tuple[str | None] | None:
        """(name,) of the connection that asked something now; None: it is not known."""
        with self._lock:
            peer = self._by_id.get(number)
            if peer is None:
                return None
            peer.heard_s = now_s
            return (peer.name,)

    def of(self, name: str) -> list[P]:
        """The connections of a name."""
        with self._lock:
            return [self._by_id[number].pipe for number in self._by_name.get(name, ())]

    def silent_since(self, then_s: float) -> list[P]:
        """The connections that have asked nothing since then."""
        with self._lock:
            return [peer.pipe for peer in self._by_id.values() if peer.heard_s < then_s]
