"""Lamps of a node that has none: for `lamps.driver = "none"`."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from appliance.types import Lamp


class Unlit:
    """Takes every setting and shows none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def set(self, lit: Mapping[Lamp, bool]) -> None:
        pass
