"""What a command prints: one JSON document, or lines and tables for people."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum

import msgspec

from appliance.controller.events import Event, as_json, as_text
from appliance.wire import printable


class Output:
    """Standard output.

    Args:
        json: one JSON document in place of text.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json

    def show(self, document: object, text: str) -> None:
        """Print what a command has to say.

        Args:
            document: printed with --json; dataclasses become objects, bytes hexadecimal text.
            text: printed without.
        """
        if self.json:
            print(msgspec.json.format(msgspec.json.encode(plain(document)).decode(), indent=2))
        else:
            print(text)


class Printer:
    """Prints events, one line each, at once. Thread-safe.

    A reader that does not read holds the controller up; nodes then keep their alerts, because
    nothing is acknowledged before it was printed.

    Args:
        json: JSON Lines in place of text.
    """

    def __init__(self, *, json: bool) -> None:
        self._line: Callable[[Event], str] = as_json if json else as_text
        self._lock = threading.Lock()

    def __call__(self, record: Event) -> None:
        """Print one event."""
        with self._lock:
            print(self._line(record), flush=True)


def complain(what: str) -> None:
    """Print a warning, on standard error."""
    print(f"picketctl: warning: {printable(what)}", file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A plain table; whatever a stranger sent is made printable."""
    lines = [list(columns), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def when(ms: int | None) -> str:
    """A time for people, in this machine's zone; "-" for none."""
    if not ms:
        return "-"
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def plain(value: object) -> object:  # noqa: PLR0911 - a table of types
    """What JSON can tell of a value: bytes as hexadecimal text, dataclasses as objects."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    return value
