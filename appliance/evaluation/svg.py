"""Charts as SVG text, drawn so that they read on paper and in grey.

Series differ by dash and marker, never by colour alone. Enters: numbers. Leaves: one <svg> element
that needs no style sheet and no script.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 26, 16, 52
_NAME_CHARS = 13
"""As wide as the margin at the left."""
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "1 5", "12 4")
_MARKERS = ("circle", "square", "triangle", "diamond")
_INKS = ("#000", "#333", "#555", "#111", "#444", "#666")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        low, high: what it shows; on a logarithmic one both above 0.
        log: whether it is logarithmic.
        percent: whether its numbers are fractions to be written as per cent.
    """

    label: str
    low: float
    high: float
    log: bool = False
    percent: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high one; clipped to the axis."""
        if self.log:
            value = max(value, self.low)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """Round numbers along it."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
        else:
            step = _round_step((self.high - self.low) / 5)
            start = math.ceil(self.low / step - 1e-9)
            steps = [i * step for i in range(start, start + 12)]
        return [s for s in steps if self.low * (1 - 1e-9) - 1e-12 <= s <= self.high * (1 + 1e-9)]

    def write(self, value: float) -> str:
        """A tick's text."""
        return f"{value * 100:.6g} %" if self.percent else f"{value:.6g}"


@dataclass(slots=True)
class Chart:
    """A chart under construction: add to it, then `svg`.

    Attributes:
        title: what a reader who cannot see it is told.
        x, y: the axes.
        height: of the whole, in pixels.
        legend_top: the legend stands at the top, not at the bottom.
    """

    title: str
    x: Axis
    y: Axis
    height: int = HEIGHT
    legend_top: bool = False
    _body: list[str] = field(default_factory=list)
    _legend: list[str] = field(default_factory=list)

    def line(self, points: Points, label: str = "", *, marked: bool = False) -> None:
        """Points joined by a line of the next dash."""
        dash, ink = self._next()
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        stroke = f'stroke="{ink}" stroke-width="1.8" stroke-dasharray="{dash}" fill="none"'
        self._body.append(f'<polyline points="{path}" {stroke}/>')
        marker = _MARKERS[len(self._legend) % len(_MARKERS)] if marked else ""
        self._body += [_marker(marker, self._x(x), self._y(y)) for x, y in points if marked]
        self._name(f'<line x1="0" y1="-4" x2="34" y2="-4" {stroke}/>', label, marker)

    def band(self, points: Points, upper: Sequence[float], label: str = "") -> None:
        """The area between two lines: (x, lower) and upper."""
        there = [f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points]
        back = [
            f"{self._x(x):.1f},{self._y(y):.1f}"
            for (x, _), y in zip(reversed(points), reversed(upper), strict=True)
        ]
        self._body.append(f'<polygon points="{" ".join(there + back)}" fill="#ddd"/>')
        self._name('<rect x="0" y="-10" width="34" height="11" fill="#ddd"/>', label, "")

    def steps(self, edges: Sequence[float], heights: Sequence[float], label: str) -> None:
        """A histogram's outline."""
        points: list[tuple[float, float]] = [(edges[0], self.y.low)]
        for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
            points += [(left, height), (right, height)]
        self.line([*points, (edges[-1], self.y.low)], label)

    def whisker(self, row: float, value: float, low: float, high: float, name: str) -> None:
        """A named value with its interval, lying: for groups and comparisons."""
        y = self._y(row)
        a, b, at = self._x(low), self._x(high), self._x(value)
        self._body.append(
            f'<path d="M{a:.1f} {y - 4:.1f}v8M{b:.1f} {y - 4:.1f}v8M{a:.1f} {y:.1f}H{b:.1f}"'
            f' stroke="#000" fill="none"/>{_marker("circle", at, y)}'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(_short(name))}</text>'
        )

    def upright(self, x: float, label: str) -> None:
        """A vertical line at a value, with words beside it."""
        at = self._x(x)
        self._body.append(
            f'<path d="M{at:.1f} {_TOP}V{self.height - _BOTTOM}" stroke="#000"'
            f' stroke-dasharray="3 3"/><text x="{at + 4:.1f}" y="{_TOP + 12}">'
            f"{escape(label)}</text>"
        )

    def svg(self, *, names: bool = True) -> str:
        """The whole chart; `names` False leaves out the numbers of the y axis."""
        first = _TOP + 18 if self.legend_top else self.height - _BOTTOM - 12
        first -= 0 if self.legend_top else 17 * (len(self._legend) - 1)
        legend = "".join(
            f'<g transform="translate({WIDTH - 260},{first + 17 * i})">{sample}</g>'
            for i, sample in enumerate(self._legend)
        )
        if legend:  # on a sheet of its own, or lines would run through the words
            tall = 17 * len(self._legend) + 6
            sheet = f'<rect x="{WIDTH - 266}" y="{first - 16}" width="236" height="{tall}"'
            legend = f'{sheet} fill="#fff" fill-opacity="0.85"/>{legend}'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}"'
            f' width="{WIDTH}" height="{self.height}" role="img" font-family="sans-serif"'
            f' font-size="12"><title>{escape(self.title)}</title>'
            f"{self._frame(names=names)}{''.join(self._body)}{legend}</svg>"
        )

    def _next(self) -> tuple[str, str]:
        count = len(self._legend)
        return _DASHES[count % len(_DASHES)], _INKS[count % len(_INKS)]

    def _name(self, sample: str, label: str, marker: str) -> None:
        if label:
            text = f'<text x="42" y="0">{escape(label)}</text>'
            self._legend.append(sample + _marker(marker, 17, -4) + text)

    def _x(self, value: float) -> float:
        return _LEFT + self.x.place(value) * (WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        return self.height - _BOTTOM - self.y.place(value) * (self.height - _TOP - _BOTTOM)

    def _frame(self, *, names: bool) -> str:
        right, bottom = WIDTH - _RIGHT, self.height - _BOTTOM
        border = f'<rect x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" height="{bottom - _TOP}"'
        parts = [f'{border} fill="#fff" stroke="#888"/>']
        for value in self.x.ticks():
            x = self._x(value)
            parts.append(
                f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#eee"/><text x="{x:.1f}"'
                f' y="{bottom + 16}" text-anchor="middle">{self.x.write(value)}</text>'
            )
        for value in self.y.ticks() if names else ():
            y = self._y(value)
            parts.append(
                f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#eee"/><text x="{_LEFT - 6}"'
                f' y="{y + 4:.1f}" text-anchor="end">{self.y.write(value)}</text>'
            )
        middle = (_LEFT + right) / 2
        parts.append(
            f'<text x="{middle}" y="{self.height - 14}" text-anchor="middle">'
            f"{escape(self.x.label)}</text>"
        )
        if names:
            parts.append(
                f'<text transform="translate(14,{(bottom + _TOP) / 2}) rotate(-90)"'
                f' text-anchor="middle">{escape(self.y.label)}</text>'
            )
        return "".join(parts)


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARS else name[: _NAME_CHARS - 1] + "…"


def _marker(kind: str, x: float, y: float) -> str:
    shape = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>',
        "square": f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>',
        "triangle": f'<path d="M{x:.1f} {y - 4:.1f}l4 7h-8z"/>',
        "diamond": f'<path d="M{x:.1f} {y - 4:.1f}l4 4-4 4-4-4z"/>',
    }
    return shape.get(kind, "")
