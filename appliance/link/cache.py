"""Ciphertext of the list on offer, kept on the card, so that it crosses the network once.

A watch service that starts again, or was cut off half-way, finds here what was fetched before.

A piece is named by its SHA-256, which is checked when it is kept and again when it is read: what
comes out is what the list's digests say, or nothing. Whether those are signed is for the watch
service to find out; nothing in here can be opened.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from appliance.errors import CardError
from appliance.link.file import replace, sweep
from appliance.wire import PIECE_MAX_BYTES

log = logging.getLogger(__name__)

DIGEST_BYTES = 32


class PieceCache:
    """A folder of pieces, of one list at a time. Thread-safe.

    Args:
        folder: made if missing; nothing else is kept in it.
        max_bytes: of all pieces together; a longer list is not kept whole.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 256 * 2**20) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._lock = threading.Lock()
        self._list: tuple[str, int] | None = None
        self._digests: tuple[bytes, ...] = ()
        self._kept_bytes = 0
        self._failing = False
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            sweep(folder)
        except OSError as e:
            self._fail(f"{folder}: {e.strerror}")

    def expect(self, list_id: str, version: int, digests: bytes) -> None:
        """This list is on offer now: pieces of no other are kept any longer.

        Args:
            list_id: of the list.
            version: of the list.
            digests: SHA-256 of each piece, one after the other; a part at the end is ignored.
        """
        whole = range(0, len(digests) - DIGEST_BYTES + 1, DIGEST_BYTES)
        with self._lock:
            self._list = (list_id, version)
            self._digests = tuple(digests[at : at + DIGEST_BYTES] for at in whole)
            self._keep_only({digest.hex() for digest in self._digests})

    def clear(self) -> None:
        """No list is on offer any longer: remove all."""
        with self._lock:
            self._list, self._digests = None, ()
            self._keep_only(set())

    def get(self, list_id: str, version: int, index: int) -> bytes | None:
        """The piece, or None if it is not here."""
        with self._lock:
            digest = self._digest(list_id, version, index)
            if digest is None:
                return None
            path = self._folder / digest.hex()
            try:
                with path.open("rb") as file:
                    sealed = file.read(PIECE_MAX_BYTES + 1)
            except OSError:
                return None  # not fetched yet, or the card fails: it is fetched, then
            if hashlib.sha256(sealed).digest() == digest:
                return sealed
            log.error("piece %d of %s: damaged on the card, fetched anew", index, list_id)
            self._remove([path])
            return None

    def put(self, list_id: str, version: int, index: int, sealed: bytes) -> None:
        """Keep a piece if it is one of the list on offer; a card that fails keeps none."""
        with self._lock:
            digest = self._digest(list_id, version, index)
            if digest is None or hashlib.sha256(sealed).digest() != digest:
                return
            path = self._folder / digest.hex()
            if path.exists() or self._kept_bytes + len(sealed) > self._max_bytes:
                return
            try:
                replace(path, sealed, durable=False)
            except CardError as e:
                self._fail(str(e))
            else:
                self._kept_bytes += len(sealed)
                self._failing = False

    def _digest(self, list_id: str, version: int, index: int) -> bytes | None:
        on_offer = (list_id, version) == self._list and index < len(self._digests)
        return self._digests[index] if on_offer else None

    def _keep_only(self, names: Sequence[str] | set[str]) -> None:
        try:
            found = tuple(self._folder.iterdir())
            self._remove([path for path in found if path.name not in names])
            self._kept_bytes = sum(p.stat().st_size for p in found if p.name in names)
        except OSError as e:
            self._fail(f"{self._folder}: {e.strerror}")

    def _remove(self, paths: Sequence[Path]) -> None:
        try:
            for path in paths:
                self._kept_bytes -= path.stat().st_size
                path.unlink()
        except OSError as e:
            self._fail(f"{self._folder}: {e.strerror}")

    def _fail(self, why: str) -> None:
        """Say it once: without a cache every piece comes from the controller, and all works."""
        if not self._failing:
            log.warning("pieces are not kept on the card: %s", why)
        self._failing = True
