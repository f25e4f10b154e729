"""Lamps without a box: they remember what they showed, and can break."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from appliance.types import Lamp


class SimulatedLamps:
    """Behaves as LEDs do.

    Attributes:
        broken: while True, no lamp can be driven.
        history: every setting since the beginning, at most `_KEPT` of them.
    """

    _KEPT = 10_000

    def __init__(self) -> None:
        self.broken = False
        self.history: list[dict[Lamp, bool]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    @property
    def lit(self) -> frozenset[Lamp]:
        """The lamps that are lit now."""
        return (
            frozenset(lamp for lamp, on in self.history[-1].items() if on)
            if self.history
            else (frozenset())
        )

    def set(self, lit: Mapping[Lamp, bool]) -> None:
        if self.broken:
            raise OSError("lamps: simulated fault")
        self.history.append({lamp: lit.get(lamp, False) for lamp in Lamp})
        del self.history[: -self._KEPT]
