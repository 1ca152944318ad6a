"""Line charts as small SVG that follows the page's colours, light or dark."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from mmjax.reports.format import number, short
from mmjax.reports.html import Markup, element, join

COLOURS = 8  # series colours in the style sheet
_WIDTH, _HEIGHT = 400, 226
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 390, 10, 190
_POINTS = 240  # a longer line is drawn as the means of this many stretches, with their range behind
_DOTTED = 24  # a line of so few points shows each of them


@dataclasses.dataclass(frozen=True)
class Series:
    """A named line: `xs` ascending, `ys` of the same length; values that are not finite are gaps."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]


def line_chart(title: str, series: Sequence[Series], x_label: str, *, log: bool = False) -> Markup | None:
    """A card with a title, a legend that gives each line's last value, and the chart.

    Args:
      title: what is drawn.
      series: at most `COLOURS` lines.
      x_label: the name of the horizontal axis.
      log: logarithmic vertical axis, used only when every value is positive.

    Returns:
      The card, or None when no line has two finite points.
    """
    lines = [_finite(s) for s in series]
    if not any(len(line.xs) >= 2 for line in lines):
        return None
    values = [y for line in lines for y in line.ys]
    log = log and min(values) > 0
    x_low, x_high = min(x for s in lines for x in s.xs), max(x for s in lines for x in s.xs)
    x_low = _floor(x_low, x_high)
    y_ticks, y_low, y_high = _vertical(min(values), max(values), log)

    def place_x(x):
        return _LEFT + (x - x_low) / ((x_high - x_low) or 1) * (_RIGHT - _LEFT)

    def place_y(y):
        low, high, at = (math.log(y_low), math.log(y_high), math.log(y)) if log else (y_low, y_high, y)
        return _BOTTOM - (at - low) / ((high - low) or 1) * (_BOTTOM - _TOP)

    axes = [_y_tick(tick, place_y(tick)) for tick in y_ticks]
    axes += [_x_tick(tick, place_x(tick)) for tick in ticks(x_low, x_high, 5)]
    drawn = [_line(line, i, place_x, place_y) for i, line in enumerate(lines) if line.xs]
    name = element("text", x_label, x=_RIGHT, y=_HEIGHT - 2, text_anchor="end", class_="axis")
    return element(
        "figure",
        element("figcaption", title),
        element("p", join(_legend(line, i) for i, line in enumerate(lines) if line.xs), class_="legend"),
        element(
            "svg",
            *axes,
            *drawn,
            name,
            viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
            role="img",
            aria_label=f"{title}: {', '.join(line.label for line in lines)}",
        ),
        class_="card chart",
    )


def _finite(series):
    kept = [(x, y) for x, y in zip(series.xs, series.ys, strict=True) if math.isfinite(y)]
    return Series(series.label, [x for x, _ in kept], [y for _, y in kept])


def _legend(line, i):
    swatch = element("i", class_=f"swatch s{i}")
    return element("span", swatch, line.label, " ", element("b", number(line.ys[-1])), class_="key")


def _y_tick(value, y):
    grid = element("line", x1=_LEFT, x2=_RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
    label = element("text", short(value), x=_LEFT - 6, y=f"{y + 3.5:.1f}", text_anchor="end", class_="axis")
    return join((grid, label))


def _x_tick(value, x):
    return element("text", short(value), x=f"{x:.1f}", y=_BOTTOM + 14, text_anchor="middle", class_="axis")


def _line(line, i, place_x, place_y):
    stretches = _stretches(line)
    means = [(place_x(x), place_y(y)) for x, y, _, _ in stretches]
    parts = []
    if len(stretches) < len(line.xs):
        upper = [(place_x(x), place_y(high)) for x, _, _, high in stretches]
        lower = [(place_x(x), place_y(low)) for x, _, low, _ in stretches]
        parts.append(element("path", d=_path(upper + lower[::-1]) + "Z", class_=f"band s{i}"))
    parts.append(element("path", d=_path(means), class_=f"line s{i}"))
    if len(means) <= _DOTTED:
        parts += [
            element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.6, class_=f"dot s{i}") for x, y in means
        ]
    return join(parts)


def _path(points):
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _stretches(line):
    """`(x, mean, lowest, highest)` of each of at most `_POINTS` equal stretches of the line."""
    size = math.ceil(len(line.xs) / _POINTS)
    found = []
    for start in range(0, len(line.xs), size):
        xs, ys = line.xs[start : start + size], line.ys[start : start + size]
        found.append((sum(xs) / len(xs), sum(ys) / len(ys), min(ys), max(ys)))
    return found


def _vertical(low, high, log):
    """Ticks and the ends of the vertical axis for values from `low` to `high`."""
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = [m * 10.0**d for d in decades for m in (1, 2, 5)]
        inside = [t for t in steps if low <= t <= high]
        if len(inside) > 6:
            inside = [t for t in inside if f"{t:e}"[0] == "1"]
        return inside, low, high
    if high == low:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    margin = (high - low) * 0.04
    low = 0 if _floor(low, high) == 0 else low - margin
    high = high + margin
    return ticks(low, high, 5), low, high


def _floor(low, high):
    """Zero instead of a lowest value that is not negative and near zero, as seen from the highest."""
    return 0 if 0 <= low < 0.35 * high else low


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (steps of 1, 2 or 5) from `low` to `high`."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if raw <= m * power * 1.0001)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]
