"""As much of an update as has come, on the card: resumed after a kill, and handed over whole.

Enters: parts, in order, of one bundle at a time. Leaves: `ready.raucb`, of the size and SHA-256
that were promised, under that name all at once. Whether it is signed is for root to find out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from appliance.errors import CardError, DigestError
from appliance.link.file import sync_folder
from appliance.wire import Bundle

FOLDER = "update"
"""In the link service's state, for itself and root."""
READY = "ready.raucb"
_PART = "part-"
ROOM_BYTES = 96 * 2**20
"""That is left to alerts: more than root asks for, so that what is fetched is not refused then."""
_SYNC_BYTES = 4 * 2**20
_BLOCK_BYTES = 1 << 20


class PartFile:
    """Used by one thread; closed by its owner.

    Args:
        folder: made if missing; what is not this bundle's is removed from it.
        offer: the bundle. What is there of it already is gone on with.

    Attributes:
        offer: the same.
        held: bytes that are there, a whole number of parts.

    Raises:
        CardError: the folder cannot be used, or there is no room for the rest of the bundle and
            for the copy that root makes of it; nothing is left.
    """

    def __init__(self, folder: Path, offer: Bundle) -> None:
        self.offer, self._folder = offer, folder
        self._path = folder / f"{_PART}{offer.sha256.hex()}"
        self._synced = 0
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            sweep(folder, but=self._path.name)
            number = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as e:
            raise CardError(f"{self._path}: {e.strerror}") from e
        self._file = os.fdopen(number, "r+b", buffering=0)
        try:
            there = min(os.fstat(number).st_size, offer.size)
            self.held = there if there == offer.size else there - there % offer.part_bytes
            self._file.truncate(self.held)
            self._file.seek(self.held)
        except OSError as e:
            self.close()
            raise CardError(f"{self._path}: {e.strerror}") from e
        self._look_for_room()

    @property
    def index(self) -> int:
        """Of the part that is to come next."""
        return self.held // self.offer.part_bytes

    @property
    def complete(self) -> bool:
        """Whether all of it is here; `verify` tells whether it is the right one."""
        return self.held == self.offer.size

    def append(self, content: bytes) -> None:
        """Keep the next part.

        Raises:
            DigestError: it is not as long as that part is.
            CardError: it could not be written; what was there is removed, for alerts need room.
        """
        due = min(self.offer.part_bytes, self.offer.size - self.held)
        if len(content) != due:
            raise DigestError(f"part {self.index} has {len(content)} bytes, not {due}")
        try:
            self._file.write(content)
            self.held += due
            if self.held - self._synced >= _SYNC_BYTES or self.complete:
                os.fdatasync(self._file.fileno())
                self._synced = self.held
        except OSError as e:
            self.discard()
            raise CardError(f"{self._path}: cannot be written: {e.strerror}") from e
        if self._synced == self.held and not self.complete:
            self._look_for_room()

    def verify(self, stop: threading.Event) -> bool:
        """Read all of it once.

        Args:
            stop: ends it.

        Returns:
            False if it was ended.

        Raises:
            DigestError: it is not what was promised; it is removed.
            CardError: it cannot be read; it is removed.
        """
        digest = hashlib.sha256()
        try:
            self._file.seek(0)
            while block := self._file.read(_BLOCK_BYTES):
                digest.update(block)
                if stop.is_set():
                    return False
        except OSError as e:
            self.discard()
            raise CardError(f"{self._path}: cannot be read: {e.strerror}") from e
        if digest.digest() != self.offer.sha256:
            self.discard()
            raise DigestError("what came is not what was promised: another SHA-256")
        return True

    def hand_over(self) -> None:
        """Give it the name that root's unit waits for, durable.

        Raises:
            CardError: it has not got it.
        """
        try:
            os.fsync(self._file.fileno())
            self._path.rename(self._folder / READY)
            sync_folder(self._folder)
        except OSError as e:
            raise CardError(f"{self._path}: cannot be handed over: {e.strerror}") from e
        finally:
            self.close()

    def close(self) -> None:
        """Leave what is there, for later."""
        with contextlib.suppress(OSError):  # the card fails: whoever reads it next says so
            self._file.close()

    def discard(self) -> None:
        """Remove what is there."""
        self.close()
        with contextlib.suppress(OSError):  # the same; the next one sweeps the folder
            self._path.unlink(missing_ok=True)

    def _look_for_room(self) -> None:
        try:
            found = os.statvfs(self._folder)
        except OSError as e:
            self.close()
            raise CardError(f"{self._folder}: {e.strerror}") from e
        free = found.f_bavail * found.f_frsize
        needed = 2 * self.offer.size - self.held + ROOM_BYTES
        if free < needed:
            self.discard()
            raise CardError(f"{free >> 20} MiB free: an update needs {needed >> 20} MiB")


def waits(folder: Path) -> bool:
    """Whether one was handed over that root has not taken yet; no, on a card that fails."""
    try:
        return (folder / READY).exists()
    except OSError:
        return False


def sweep(folder: Path, *, but: str = "") -> None:
    """Remove what is left of other bundles; what was handed over is root's to remove.

    Raises:
        OSError: it cannot be removed.
    """
    for path in folder.glob(f"{_PART}*"):
        if path.name != but:
            path.unlink(missing_ok=True)
