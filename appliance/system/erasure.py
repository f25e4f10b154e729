"""Pixels live in a fixed number of buffers and are overwritten; every face is accounted for.

Nothing here decides when a use is over. It makes sure that a buffer cannot be used again before
each of its bytes was overwritten, and that a face which was seen cannot drop out of the books.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from appliance.errors import ErasureError
from appliance.system.latency import Histogram, Latency
from appliance.types import Image


class FramePool:
    """All the memory that frames may ever be in. Thread-safe.

    Args:
        count: buffers; one in the camera, one in the slot and one in use need three.
        size: (width, height) in pixels.
    """

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        width, height = size
        self._buffers = [np.zeros((height, width, 3), np.uint8) for _ in range(count)]
        self._free = list(self._buffers)
        self._returned = threading.Condition()

    def take(self, timeout_s: float) -> Image:
        """A buffer of zeros, the caller's until it is given back.

        Raises:
            ErasureError: none came back within timeout_s: somebody keeps frames.
        """
        with self._returned:
            if not self._returned.wait_for(lambda: self._free, timeout_s):
                raise ErasureError(
                    f"none of {len(self._buffers)} frame buffers came back within {timeout_s} s"
                )
            return self._free.pop()

    def give_back(self, image: Image) -> None:
        """Overwrite a buffer and make it free.

        Args:
            image: the very array that `take` returned, not a view of it.

        Raises:
            ErasureError: it is not of this pool, or was given back already.
        """
        with self._returned:
            if not any(image is buffer for buffer in self._buffers):
                raise ErasureError("a buffer was given back that is not of this pool")
            if any(image is buffer for buffer in self._free):
                raise ErasureError("a buffer was given back twice")
            # Inside the lock: between its overwriting and its return nobody else may have it.
            image.fill(0)
            self._free.append(image)
            self._returned.notify()

    @property
    def lent(self) -> int:
        """Buffers taken and not given back."""
        with self._returned:
            return len(self._buffers) - len(self._free)


@dataclass(frozen=True, slots=True)
class Account:
    """The books at one moment.

    Attributes:
        frames: from exposure until the pixels were overwritten.
        vectors: from the exposure of a track's last embedded face until its vectors were
            overwritten.
        faces_seen, faces_erased, faces_alerted, faces_held: tracks; held are the undecided.
    """

    frames: Latency
    vectors: Latency
    faces_seen: int
    faces_erased: int
    faces_alerted: int
    faces_held: int

    @property
    def balanced(self) -> bool:
        """Every face seen was erased, raised an alert or is held; else the node is in FAULT."""
        return (
            self.faces_held >= 0
            and self.faces_seen == self.faces_erased + self.faces_alerted + self.faces_held
        )


class Ledger:
    """Counts what was seen and what became of it. Thread-safe.

    `face_*` keep the books; `audit` compares them with the shelf. Without an audit a face that
    was dropped without being erased would count as held for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames, self._vectors = Histogram(), Histogram()
        self._seen = self._erased = self._alerted = self._held = 0

    def frame_erased(self, latency_ns: int) -> None:
        """A frame's pixels were overwritten.

        Args:
            latency_ns: since its exposure.
        """
        with self._lock:
            self._frames.add(latency_ns)

    def vectors_erased(self, latency_ns: int) -> None:
        """A track's vectors were overwritten.

        Args:
            latency_ns: since the exposure of the last of them.
        """
        with self._lock:
            self._vectors.add(latency_ns)

    def face_seen(self) -> None:
        """A new track: from now on it is held."""
        with self._lock:
            self._seen += 1
            self._held += 1

    def face_erased(self) -> None:
        """A held track was let go without an alert and nothing of it is kept."""
        with self._lock:
            self._erased += 1
            self._held -= 1

    def face_alerted(self) -> None:
        """A held track raised an alert; its vectors are gone."""
        with self._lock:
            self._alerted += 1
            self._held -= 1

    def audit(self, held: int) -> None:
        """Enter what is really on the shelf: called by its owner between two frames.

        Args:
            held: undecided tracks that the owner has.
        """
        with self._lock:
            self._held = held

    def snapshot(self) -> Account:
        """The books, all of one moment."""
        with self._lock:
            return Account(
                frames=self._frames.summary(),
                vectors=self._vectors.summary(),
                faces_seen=self._seen,
                faces_erased=self._erased,
                faces_alerted=self._alerted,
                faces_held=self._held,
            )
