"""The plans of SigLIP as a picture: memory, exchanges and time of a chip against the number of chips."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments import pages
from mmjax.reports.charts import ticks
from mmjax.reports.format import short
from mmjax.reports.html import Markup, element

FILE = pages.DOCS / "images" / "siglip_plans.svg"

_WIDTH, _HEIGHT, _GAP, _LEFT, _TOP, _LEGEND = 270, 220, 62, 52, 40, 24
_INK, _SOFT, _GRID = "#1c1d21", "#6a6d76", "#e4e4e0"
_COLOURS = ("#1f6fb2", "#d9662b", "#3d8f4f", "#7a4fb0")  # one for each model


class Panel(NamedTuple):
    """A number of a plan, and what its axis says."""

    heading: str
    value: Callable[[Mapping[str, Any]], float]


class Series(NamedTuple):
    """Plans that are joined by a line, or one that is a mark of its own: (chips, plan) in order."""

    label: str
    points: list[tuple[int, Mapping[str, Any]]]


def panels() -> tuple[Panel, ...]:
    """What is drawn side by side."""

    def sent(plan):
        return sum(sum(axes.values()) for axes in plan["collective_bytes"].values()) / 2**30

    return (
        Panel("memory of a chip, GiB", lambda plan: plan["needed_bytes"] / 2**30),
        Panel("sent by a chip in a step, GiB", sent),
        Panel("estimated step, ms", lambda plan: plan["estimated_seconds"] * 1e3),
    )


def series(plans: Mapping[str, Any]) -> list[Series]:
    """The plans that fit, by model, kind of chip and what is set besides."""
    found: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for key, plan in plans.items():
        model, topology, *settings = key.split(" ")
        label = ", ".join([model, topology.split(":")[0], *(_short(text) for text in settings)])
        if plan["fits"]:
            found.setdefault(label.replace(", data=-1", ""), []).append((plan["chips"], plan))
    return [Series(label, sorted(points, key=lambda p: p[0])) for label, points in sorted(found.items())]


def to_svg(plans: Mapping[str, Any]) -> str:
    """The picture; the axis of chips is logarithmic."""
    drawn = series(plans)
    marks = _marks(drawn)
    across = panels()
    width = _LEFT + len(across) * (_WIDTH + _GAP)
    height = _TOP + _HEIGHT + 44 + _LEGEND * math.ceil(len(drawn) / 2)
    body = [element("rect", width=width, height=height, fill="#ffffff")]
    for i, panel in enumerate(across):
        body.append(_panel(panel, drawn, marks, _LEFT + i * (_WIDTH + _GAP)))
    for i, item in enumerate(drawn):
        x, y = _LEFT + (i % 2) * 400, _TOP + _HEIGHT + 58 + _LEGEND * (i // 2)
        body += [_mark(x, y - 4, *marks[i]), _text(item.label, x + 14, y, "start", _INK)]
    svg = element(
        "svg",
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        font_family="system-ui, Helvetica, Arial, sans-serif",
        font_size=12,
    )
    return f"{svg}\n"


def write(plans: Mapping[str, Any], file: pathlib.Path = FILE) -> None:
    """Writes the picture."""
    file.write_text(to_svg(plans), encoding="utf-8")


def _marks(drawn: list[Series]) -> list[tuple[str, int]]:
    """Colour and shape of each series: a colour for each model, a shape for each of its series."""
    models = [item.label.split(",")[0] for item in drawn]
    order = list(dict.fromkeys(models))
    return [
        (_COLOURS[order.index(model) % len(_COLOURS)], models[:i].count(model))
        for i, model in enumerate(models)
    ]


def _panel(panel: Panel, drawn: list[Series], marks: list[tuple[str, int]], left: float) -> Markup:
    chips = sorted({count for item in drawn for count, _ in item.points})
    high = 1.06 * max((panel.value(plan) for item in drawn for _, plan in item.points), default=1.0)
    across = math.log2(chips[-1] / chips[0]) if len(chips) > 1 else 1.0

    def x(count):
        return left + math.log2(count / chips[0]) / across * _WIDTH

    def y(value):
        return _TOP + _HEIGHT * (1 - value / high)

    parts = [_text(panel.heading, left, _TOP - 16, "start", _INK)]
    for value in ticks(0, high, 5):
        parts.append(_line(left, y(value), left + _WIDTH, y(value), _GRID, 1))
        parts.append(_text(short(value), left - 8, y(value) + 4, "end", _SOFT))
    for count in chips:
        parts.append(_text(f"{count:,}", x(count), _TOP + _HEIGHT + 18, "middle", _SOFT))
    parts.append(_text("chips", left + _WIDTH / 2, _TOP + _HEIGHT + 36, "middle", _SOFT))
    for item, mark in zip(drawn, marks, strict=True):
        places = [(x(count), y(panel.value(plan))) for count, plan in item.points]
        for (x1, y1), (x2, y2) in zip(places, places[1:], strict=False):
            parts.append(_line(x1, y1, x2, y2, mark[0], 1.5))
        parts += [_mark(*place, *mark) for place in places]
    return element("g", *parts)


def _mark(x: float, y: float, fill: str, shape: int) -> Markup:
    """A disc, a diamond, a triangle or, from the fourth on, a square."""
    if shape == 0:
        return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, fill=fill)
    diamond, triangle = ((-5, 0), (0, -5), (5, 0), (0, 5)), ((-5, 4), (0, -5), (5, 4))
    square = ((-4, -4), (4, -4), (4, 4), (-4, 4))
    sides = (diamond, triangle, square)[min(shape, 3) - 1]
    return element("polygon", points=" ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in sides), fill=fill)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> Markup:
    places = {name: f"{value:.1f}" for name, value in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2))}
    return element("line", **places, stroke=colour, stroke_width=width)


def _text(text: str, x: float, y: float, anchor: str, colour: str) -> Markup:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, fill=colour)


def _short(setting: str) -> str:
    """'mesh.fsdp=8' as 'fsdp=8'."""
    return setting.rpartition(".")[2]
