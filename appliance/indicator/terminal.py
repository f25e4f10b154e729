"""The lamps as text: for development, the demo, and nodes without LEDs."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

from appliance.types import Lamp

_LIT, _UNLIT = "●", "○"
COLOURS = {"red": 31, "green": 32, "amber": 33, "yellow": 93, "blue": 34, "white": 97}
"""ANSI foregrounds. The shape tells lit from unlit, so colour may be lost."""
DEFAULT_COLOURS = {Lamp.CAMERA: "red", Lamp.STATUS: "green", Lamp.ALERT: "amber"}


class TerminalLamps:
    """One line of dots: repainted in place on a terminal, else one line per change.

    Args:
        stream: text; the caller closes it.
        colours: of the lamps, names in COLOURS.
    """

    def __init__(self, stream: TextIO, *, colours: Mapping[Lamp, str] = DEFAULT_COLOURS) -> None:
        self._stream = stream
        self._colours = {lamp: COLOURS[colours[lamp]] for lamp in Lamp}
        self._in_place = stream.isatty()
        self._row = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._in_place:
            self._write("\n")

    def set(self, lit: Mapping[Lamp, bool]) -> None:
        row = "  ".join(self._dot(lamp, lit.get(lamp, False)) for lamp in Lamp)
        if row != self._row:
            self._row = row
            self._write(f"\r{row}\x1b[K" if self._in_place else f"{row}\n")

    def _dot(self, lamp: Lamp, lit: bool) -> str:  # noqa: FBT001 - private
        dot = _LIT if lit else _UNLIT
        if lit and self._in_place:
            dot = f"\x1b[{self._colours[lamp]}m{dot}\x1b[0m"
        return f"{dot} {lamp}"

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except ValueError as e:  # what Python raises for a closed stream
            raise OSError(f"lamps: {e}") from e
