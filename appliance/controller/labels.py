"""Labels to stick on boxes: node id, fleet, place, and a QR code that says the first two.

Enters: which nodes. Leaves: a PDF, A4, three labels across and eight down (70 x 37 mm, as sold
everywhere). No secret is on a label.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from appliance.errors import ControllerError

ACROSS, DOWN = 3, 8
_WIDE_MM, _HIGH_MM = 70.0, 37.0
_MARGIN_MM, _QR_MM = 4.0, 27.0
_PAGE_MM = (210.0, 297.0)


@dataclass(frozen=True, slots=True)
class Label:
    """What one box says."""

    node: str
    fleet: str
    place: str = ""

    @property
    def code(self) -> str:
        """What its QR code says."""
        return f"picket:{self.fleet}/{self.node}"


def pdf(labels: Sequence[Label]) -> bytes:
    """The sheets.

    Args:
        labels: at least one, in the order in which they are printed, row by row.

    Raises:
        ControllerError: what draws them is not installed.
    """
    try:
        from reportlab.lib.units import mm
        from reportlab.pdfgen.canvas import Canvas
    except ImportError as e:
        raise ControllerError(f"labels need {e.name}: pip install 'picket[controller]'") from e
    out = io.BytesIO()
    # invariant: no date in it, so that the same nodes give the same file.
    canvas = Canvas(out, pagesize=tuple(side * mm for side in _PAGE_MM), invariant=1)
    canvas.setTitle("Picket: labels")
    for index, label in enumerate(labels):
        place = index % (ACROSS * DOWN)
        if index and place == 0:
            canvas.showPage()
        left_mm, bottom_mm = corner(place)
        at = ((left_mm + _MARGIN_MM) * mm, (bottom_mm + (_HIGH_MM - _QR_MM) / 2) * mm)
        _qr(canvas, label.code, at, _QR_MM * mm)
        _words(canvas, label, (left_mm + _MARGIN_MM + _QR_MM + 2) * mm, bottom_mm * mm, mm)
    canvas.save()
    return out.getvalue()


def corner(place: int) -> tuple[float, float]:
    """Lower left corner of a label, mm from the lower left corner of its sheet."""
    row, column = divmod(place, ACROSS)
    return column * _WIDE_MM, _PAGE_MM[1] - (row + 1) * _HIGH_MM - 0.5


def modules(text: str) -> list[list[bool]]:
    """A QR code, rows from the top: dark or light. Level M: an eighth of it may be dirt."""
    from reportlab.graphics.barcode.qr import QrCodeWidget

    widget = QrCodeWidget(text, barLevel="M")
    widget.qr.make()
    return [[bool(dark) for dark in row] for row in widget.qr.modules]


def _qr(
    canvas: Any,  # noqa: ANN401 - reportlab has no types
    text: str,
    corner_pt: tuple[float, float],
    side_pt: float,
) -> None:
    """One filled path; as reportlab's own drawing, a shape per module, it takes four times as long.

    The quiet zone of four modules that readers want is in the label's margin.
    """
    rows = modules(text)
    step = side_pt / len(rows)
    path = canvas.beginPath()
    for number, row in enumerate(rows):
        column = 0
        bottom = corner_pt[1] + side_pt - (number + 1) * step
        for dark, run in groupby(row):
            length = len(list(run))
            if dark:
                path.rect(corner_pt[0] + column * step, bottom, length * step, step)
            column += length
    canvas.drawPath(path, stroke=0, fill=1)


def _words(
    canvas: Any,  # noqa: ANN401 - same
    label: Label,
    left: float,
    bottom: float,
    mm: float,
) -> None:
    """The id as large as fits: it is read from a ladder."""
    room = (_WIDE_MM - 2 * _MARGIN_MM - _QR_MM - 2) * mm
    lines = (
        ("Helvetica-Bold", 20.0, label.node, 21.0),
        ("Helvetica", 9.0, label.fleet, 14.0),
        ("Helvetica", 8.0, label.place, 9.0),
    )
    for font, size, text, height_mm in lines:
        _line(canvas, text, (font, size), (left, bottom + height_mm * mm), room)


def _line(
    canvas: Any,  # noqa: ANN401 - same
    text: str,
    font: tuple[str, float],
    at: tuple[float, float],
    room: float,
) -> None:
    from reportlab.pdfbase.pdfmetrics import stringWidth

    name, size = font
    while size > 5 and stringWidth(text, name, size) > room:  # noqa: PLR2004 - points, legible
        size -= 0.5
    while text and stringWidth(text, name, size) > room:
        text = text[:-1]
    canvas.setFont(name, size)
    canvas.drawString(*at, text)
