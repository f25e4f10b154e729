"""The highest version of each list that this node ever took into use: below it nothing is taken.

The watch service has nowhere to write, so the link service keeps the floors for it, and gives
them back in Welcome. A floor is raised when a Poll says that a version is in use, which the watch
service says only after all its checks; nothing lowers one. A lost or older file re-admits
nothing by itself: the stamp names the current version, and a grant opens one version only.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from appliance.errors import CardError
from appliance.link.file import replace, sweep
from appliance.wire import Count, Name

log = logging.getLogger(__name__)

FLOORS_MAX = 64
"""As many as a Welcome takes; the one that was raised longest ago makes room."""
_FILE_MAX_BYTES = 64 * 1024
_Kept = Annotated[tuple[tuple[Name, Count], ...], Meta(max_length=FLOORS_MAX)]
_decoder = msgspec.json.Decoder(_Kept)


class Floors:
    """A small file, and the same in memory. Thread-safe.

    Args:
        path: of the file; made when there is something to keep. A damaged one is set aside.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._on_card = True
        self._floors = self._read()

    def all(self) -> tuple[tuple[str, int], ...]:
        """(list, highest version), the one that was raised last at the end."""
        with self._lock:
            return tuple(self._floors.items())

    def in_use(self, list_id: str, version: int) -> None:
        """A version is in use: nothing below it ever again. "" is no list.

        When this returns, the floor is on the card, or an error has been logged and it is tried
        again at the next call; meanwhile it holds in memory.
        """
        with self._lock:
            if list_id and version > self._floors.get(list_id, 0):
                self._floors.pop(list_id, None)
                if len(self._floors) >= FLOORS_MAX:
                    self._floors.pop(next(iter(self._floors)))
                self._floors[list_id] = version
                self._on_card = False
            if not self._on_card:
                self._write()

    def _write(self) -> None:
        try:
            replace(self._path, msgspec.json.encode(tuple(self._floors.items())))
        except CardError as e:
            log.error("a list's floor is kept in memory only: %s", e)  # noqa: TRY400 - the line says it all
        else:
            self._on_card = True

    def _read(self) -> dict[str, int]:
        try:
            sweep(self._path.parent, self._path.name)
            with self._path.open("rb") as file:
                content = file.read(_FILE_MAX_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as e:
            log.error("%s: cannot be read, no floors are known: %s", self._path, e.strerror)  # noqa: TRY400 - the same
            return {}
        try:
            if len(content) > _FILE_MAX_BYTES:
                raise CardError(f"over {_FILE_MAX_BYTES} bytes")  # noqa: TRY301 - as if damaged
            return dict(_decoder.decode(content))
        except (msgspec.MsgspecError, UnicodeDecodeError, CardError) as e:
            aside = self._path.with_name(f"{self._path.name}.damaged")
            log.error("%s: damaged, kept as %s, no floors are known: %s", self._path, aside, e)  # noqa: TRY400 - the same
            try:
                self._path.replace(aside)
            except OSError as failed:
                log.error("%s: cannot be set aside: %s", self._path, failed.strerror)  # noqa: TRY400 - the same
            return {}
