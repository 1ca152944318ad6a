"""What is drawn of a study: parallel coordinates, importance, and the curves of all trials, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.reports.format import cut, number, short
from mmjax.reports.html import Markup, element, join
from mmjax.sweeps.points import short_names, shown

CSS = """
.trial { fill: none; stroke: var(--c0); stroke-width: 1.4; stroke-linejoin: round; }
.trial.first { stroke: var(--c1); stroke-width: 2.8; } .trial.stopped { stroke: var(--soft); }
.end { fill: var(--c0); } .end.first { fill: var(--c1); } .end.stopped { fill: var(--soft); }
.bar { fill: var(--c0); } .upright { stroke: var(--soft); stroke-width: 1; }
.whole { max-width: none; margin-bottom: 14px; }
.whole .axis { paint-order: stroke; stroke: var(--card); stroke-width: 3px; }
"""
_WIDTH, _HEIGHT = 1100, 360
_TOP, _BOTTOM = 44, 330
_MOST_NAMES = 12  # values of a text axis that are written
_LONGEST_NAME = 40


def parallel(
    points: Sequence[Mapping[str, Any]], values: Sequence[float], best: int, metric: str
) -> Markup | None:
    """A line for each trial over one axis for each key, and the metric's at the right; the best stands out.

    Args:
      points: key -> value of each trial.
      values: the metric of each.
      best: position of the best one.
      metric: its name.

    Returns:
      The card, or None for fewer than two trials.
    """
    if len(points) < 2:
        return None
    keys = list(dict.fromkeys(key for point in points for key in point))
    columns = [[point.get(key) for point in points] for key in keys] + [list(values)]
    scales = [_Scale(column) for column in columns]
    left, right = 90, _WIDTH - 90
    xs = [left + i * (right - left) / (len(columns) - 1) for i in range(len(columns))]
    ends = [scales[-1].at(value) for value in values]
    drawn = []
    for i in sorted(range(len(points)), key=lambda i: (i == best, ends[i])):
        places = [(x, _y(s.at(column[i]))) for x, s, column in zip(xs, scales, columns, strict=True)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        drawn.append(
            element(
                "path",
                d=path,
                class_=f"trial{' first' if i == best else ''}",
                stroke_opacity=_weight(i == best),
            )
        )
    axes = [
        _axis(x, scale, name)
        for x, scale, name in zip(xs, scales, [*short_names(keys), metric.split("/")[-1]], strict=True)
    ]
    return _card(
        "Parallel coordinates", f"{len(points)} trials; the best in the second colour", *drawn, *axes
    )


def curves(
    series: Sequence[tuple[Sequence[tuple[int, float]], bool]], best: int | None, metric: str
) -> Markup | None:
    """The metric over the training of every trial.

    Args:
      series: of each trial ((step, value), ...) and whether it was stopped early.
      best: position of the best one.
      metric: its name.

    Returns:
      The card, or None where no trial was evaluated.
    """
    values = [(step, value) for line, _ in series for step, value in line if math.isfinite(value)]
    if not values:
        return None
    scale = _Scale([value for _, value in values])
    last = max(step for step, _ in values) or 1
    left, right = 70, _WIDTH - 30

    def place(step, value):
        return left + step / last * (right - left), _y(scale.at(value))

    drawn = []
    for i in sorted(range(len(series)), key=lambda i: (i == best, not series[i][1])):
        line, stopped = series[i]
        places = [place(step, value) for step, value in line if math.isfinite(value)]
        if not places:
            continue
        kind = " first" if i == best else " stopped" if stopped else ""
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        drawn.append(element("path", d=path, class_=f"trial{kind}", stroke_opacity=_weight(i == best)))
        x, y = places[-1]
        drawn.append(element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.6, class_=f"end{kind}"))
    ticks = [_tick(left, right, scale, share) for share in (0, 0.25, 0.5, 0.75, 1)]
    steps = [
        element("text", short(share * last), x=left + share * (right - left), y=_BOTTOM + 18, class_="axis",
                text_anchor="middle")
        for share in (0, 0.5, 1)
    ]  # fmt: skip
    return _card(
        f"{metric} over steps", "grey: stopped early; the best in the second colour", *ticks, *steps, *drawn
    )


def importance(shares: Mapping[str, float]) -> Markup:
    """A bar for each key, the most important first."""
    height = 26
    rows = []
    for i, (key, share) in enumerate(sorted(shares.items(), key=lambda item: -item[1])):
        y = 8 + i * height
        rows += [
            element("text", key, x=310, y=y + 13, text_anchor="end", class_="axis"),
            element("rect", x=320, y=y, width=f"{max(share, 0.0) * 660:.1f}", height=16, rx=3, class_="bar"),
            element("text", f"{share:.2f}", x=f"{326 + max(share, 0.0) * 660:.1f}", y=y + 13, class_="axis"),
        ]
    return _card("Importance", None, *rows, height=16 + height * len(shares))


class _Scale:
    """Places values of a column in [0, 1]: numbers by size, everything else side by side."""

    def __init__(self, column: Sequence[Any]):
        given = [value for value in column if value is not None]
        self.numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in given) and bool(
            given
        )
        if self.numbers:
            self.low, self.high = min(given), max(given)
            # As wide as a range that is searched on a logarithmic scale mostly is.
            self.log = self.low > 0 and self.high / self.low >= 20
            self.names = []
        else:
            self.names = sorted({_name(value) for value in column})

    def at(self, value: Any) -> float:
        if not self.numbers:
            return (self.names.index(_name(value)) + 0.5) / len(self.names)
        if value is None or self.high == self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def value(self, share: float) -> float:
        if self.log:
            return self.low * (self.high / self.low) ** share
        return self.low + share * (self.high - self.low)


def _axis(x, scale, name):
    parts = [
        element("line", x1=x, x2=x, y1=_TOP, y2=_BOTTOM, class_="upright"),
        element("text", name, x=x, y=22, text_anchor="middle", class_="axis"),
    ]
    if scale.numbers:
        shares = (0, 0.5, 1) if scale.high > scale.low else (0.5,)
        marks = [(share, shown(scale.value(share))) for share in shares]
    else:
        marks = [
            ((i + 0.5) / len(scale.names), cut(text, _LONGEST_NAME))
            for i, text in enumerate(scale.names[:_MOST_NAMES])
        ]
    parts += [
        element("text", text, x=x + 6, y=f"{_y(share) + 4:.1f}", class_="axis") for share, text in marks
    ]
    return join(parts)


def _tick(left, right, scale, share):
    y = f"{_y(share):.1f}"
    return join(
        (
            element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"),
            element(
                "text",
                number(scale.value(share)),
                x=left - 8,
                y=_y(share) + 4,
                text_anchor="end",
                class_="axis",
            ),
        )
    )


def _card(title, note, *drawn, height=_HEIGHT):
    return element(
        "figure",
        element("figcaption", title),
        element("p", note, class_="note") if note else None,
        element("svg", *drawn, viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label=title),
        class_="card chart whole",
    )


def _name(value: Any) -> str:
    return "–" if value is None else shown(value)


def _weight(first: bool) -> str:
    return "1" if first else "0.45"


def _y(share: float) -> float:
    return _BOTTOM - share * (_BOTTOM - _TOP)
