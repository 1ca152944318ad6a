"""An experiment's numbers as a picture: a panel per column, a line per row, a dot per seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmjax.reports.charts import ticks
from mmjax.reports.format import short
from mmjax.reports.html import Markup, element
from mmjax.reproduce.experiment import Column, Row
from mmjax.reproduce.measured import Cell, Measured

_ACROSS = 3  # panels side by side; more begin a new line
_PANEL, _GAP, _LINE, _HEAD, _FOOT, _LEGEND = 250, 40, 24, 44, 34, 28
_INK, _SOFT, _GRID, _DOT, _EXPECTED = "#1c1d21", "#6a6d76", "#e4e4e0", "#1f6fb2", "#d9662b"
_CHARACTER = 6.6  # pixels that a letter of the labels takes on average, at most
_TICKS = 4


def to_svg(measured: Measured) -> str:
    """The picture: dots are seeds, a bar is the mean, a line one standard deviation to either side of it; a
    diamond is what is expected, and the line through it the tolerance. Panels have scales of their own.
    """
    rows, columns = measured.experiment.rows, measured.experiment.columns
    left = 24 + _CHARACTER * max(len(row.heading) for row in rows)
    lines = [columns[i : i + _ACROSS] for i in range(0, len(columns), _ACROSS)]
    line_height = _HEAD + _LINE * len(rows) + _FOOT
    width = left + len(lines[0]) * (_PANEL + _GAP)
    height = line_height * len(lines) + _LEGEND * (2 if any(row.expected for row in rows) else 1)
    body = [element("rect", width=_n(width), height=height, fill="#ffffff")]
    for i, line in enumerate(lines):
        top = i * line_height
        body += [_text(row.heading, left - 14, _y(top, k) + 4, "end", _INK) for k, row in enumerate(rows)]
        for k, column in enumerate(line):
            body.append(_panel(measured, rows, column, left + k * (_PANEL + _GAP), top))
    body += _legend(24, line_height * len(lines), any(row.expected for row in rows))
    svg = element(
        "svg",
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_n(width)} {height}",
        width=_n(width),
        height=height,
        font_family="system-ui, Helvetica, Arial, sans-serif",
        font_size=12,
    )
    return f"{svg}\n"


def _panel(measured: Measured, rows: Sequence[Row], column: Column, left: float, top: float) -> Markup:
    cells = [measured.cell(row, column) for row in rows]
    low, high = _range(cells)

    def x(value):
        return left + (value - low) / (high - low) * _PANEL

    bottom = top + _HEAD + _LINE * len(rows)
    drawn = [_text(column.heading, left + _PANEL / 2, top + 20, "middle", _INK)]
    for value in ticks(low, high, _TICKS):
        drawn.append(_stroke(x(value), top + _HEAD - 12, x(value), bottom, _GRID, 1))
        drawn.append(_text(short(value), x(value), bottom + 14, "middle", _SOFT))
    for i, cell in enumerate(cells):
        drawn += _cell(cell, _y(top, i), x)
    return element("g", *drawn)


def _range(cells: Sequence[Cell]) -> tuple[float, float]:
    """From the smallest to the largest number that is drawn, and a little more."""
    values = [value for cell in cells for value in cell.values]
    for cell in cells:
        if cell.expected:
            values += [cell.expected.value - cell.expected.tolerance]
            values += [cell.expected.value + cell.expected.tolerance]
        if cell.deviation is not None:
            values += [cell.mean - cell.deviation, cell.mean + cell.deviation]
    if not values:
        return 0.0, 1.0
    room = 0.06 * (max(values) - min(values)) or 1.0
    return min(values) - room, max(values) + room


def _cell(cell: Cell, y: float, x: Callable[[float], float]) -> list[Markup]:
    drawn = []
    if expected := cell.expected:
        low, high = expected.value - expected.tolerance, expected.value + expected.tolerance
        drawn += [_stroke(x(low), y, x(high), y, _EXPECTED, 1.5), _diamond(x(expected.value), y)]
    drawn += [_dot(x(value), y) for value in cell.values]
    if cell.mean is not None:
        drawn.append(_stroke(x(cell.mean), y - 7, x(cell.mean), y + 7, _DOT, 2))
    if cell.deviation is not None:
        low, high = cell.mean - cell.deviation, cell.mean + cell.deviation
        drawn.append(_stroke(x(low), y, x(high), y, _DOT, 1.5))
    return drawn


def _legend(left: float, top: float, expected: bool) -> list[Markup]:
    text = "one seed; the bar is the mean, the line ± one standard deviation"
    drawn = [_dot(left - 4, top), _text(text, left + 8, top + 4, "start", _SOFT)]
    if expected:
        drawn += [_diamond(left - 4, top + 22)]
        drawn += [_text("expected; the line is the tolerance", left + 8, top + 26, "start", _SOFT)]
    return drawn


def _y(top: float, row: int) -> float:
    return top + _HEAD + _LINE * row + _LINE / 2 - 6


def _text(text: str, x: float, y: float, anchor: str, colour: str) -> Markup:
    return element("text", text, x=_n(x), y=_n(y), text_anchor=anchor, fill=colour)


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> Markup:
    places = {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)}
    return element("line", **places, stroke=colour, stroke_width=width)


def _dot(x: float, y: float) -> Markup:
    return element("circle", cx=_n(x), cy=_n(y), r=3, fill=_DOT, fill_opacity=0.45)


def _diamond(x: float, y: float) -> Markup:
    points = [(x - 5, y), (x, y - 5), (x + 5, y), (x, y + 5)]
    return element("polygon", points=" ".join(f"{_n(a)},{_n(b)}" for a, b in points), fill=_EXPECTED)


def _n(value: float) -> str:
    return f"{value:.1f}"
