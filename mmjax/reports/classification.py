"""Sections on a classifier: the confusion matrix, each class, how far its confidence can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.reports.format import cut, number, short
from mmjax.reports.html import Markup, element, join

_NUMBERED = 16  # a matrix of so few classes shows its counts
_DRAWN = 120  # a larger matrix is told by its largest confusions only
_PAIRS = 10


def confusion_matrix(artifact: Mapping[str, Any]) -> Markup | None:
    """The heat map, the numbers of each class, and the pairs confused most often.

    Args:
      artifact: `labels` (N names), `matrix` (`[N, N]` counts; a row is a true class, a column a
        predicted one) and `classes`, as in `class_table`.

    Raises:
      ValueError: when `matrix` is not `[N, N]`.
    """
    labels = [str(label) for label in artifact["labels"]]
    matrix = np.asarray(artifact["matrix"], np.float64)
    if matrix.shape != (len(labels), len(labels)):
        raise ValueError(
            f"matrix has shape {matrix.shape}, expected a row and a column for each of {len(labels)}"
        )
    if matrix.sum() == 0:
        return None
    tables = element("div", class_table(artifact), _pairs(labels, matrix), class_="side")
    return join((_heat_map(labels, matrix) if len(labels) <= _DRAWN else None, tables))


def class_table(artifact: Mapping[str, Any]) -> Markup | None:
    """The numbers of each class, worst first, with a bar for the F1.

    Args:
      artifact: `classes`: a list of `{'name', 'f1', ...}`; the other numbers are columns too. None
        stands for what is not defined.
    """
    classes = artifact["classes"]
    if not classes:
        return None
    columns = ["f1", *[key for key in classes[0] if key not in ("name", "f1")]]
    rows = []
    for entry in sorted(classes, key=lambda entry: entry["f1"] or 0.0):
        bar = element(
            "svg",
            element("rect", width=100, height=8, class_="ground"),
            element("rect", width=round(100 * (entry["f1"] or 0.0), 1), height=8, class_="right"),
            viewBox="0 0 100 8",
            width=100,
            height=8,
            aria_hidden="true",
        )
        shown = ["" if entry.get(key) is None else number(entry[key]) for key in columns]
        cells = [element("td", entry["name"]), element("td", bar), *[element("td", cell) for cell in shown]]
        rows.append(element("tr", *cells))
    names = ["class", "", *[{"f1": "F1", "auroc": "AUROC"}.get(c, c.replace("_", " ")) for c in columns]]
    return _listing("Each class, worst first", [element("th", name) for name in names], rows)


def _heat_map(labels, matrix):
    n = len(labels)
    cell = 34 if n <= _NUMBERED else (18 if n <= 40 else 11)
    font = min(11, cell - 1)
    margin = round(font * 0.58 * min(18, max(len(label) for label in labels))) + 12
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    parts = [element("rect", x=margin, y=margin, width=n * cell, height=n * cell, class_="ground")]
    for i in range(n):
        middle = margin + i * cell + cell / 2
        text = cut(labels[i], 18)
        parts.append(
            element("text", text, x=margin - 5, y=middle + font * 0.35, text_anchor="end", font_size=font)
        )
        turned = f"translate({middle + font * 0.35} {margin - 5}) rotate(-90)"
        parts.append(element("text", text, transform=turned, font_size=font))
        parts += [_cell(labels, matrix, share, i, j, margin, cell) for j in range(n) if matrix[i, j]]
    side = margin + n * cell + 2
    note = "Rows are the true classes, columns the predicted ones; shades are shares of a row."
    drawing = element(
        "svg", *parts, viewBox=f"0 0 {side} {side}", width=side, role="img", aria_label="confusion matrix"
    )
    return element("figure", element("div", drawing, class_="scroll"), element("p", note, class_="note"))


def _cell(labels, matrix, share, i, j, margin, cell):
    x, y, part = margin + j * cell, margin + i * cell, share[i, j]
    tip = f"{labels[i]} → {labels[j]}: {number(int(matrix[i, j]))} ({part:.0%})"
    kind = "right" if i == j else "wrong"
    box = element(
        "rect",
        element("title", tip),
        x=x,
        y=y,
        width=cell - 1,
        height=cell - 1,
        fill_opacity=f"{0.08 + 0.92 * part:.2f}",
        class_=kind,
    )
    if len(labels) > _NUMBERED:
        return box
    count = element(
        "text",
        short(matrix[i, j]),
        x=x + cell / 2 - 0.5,
        y=y + cell / 2 + 3.5,
        text_anchor="middle",
        font_size=11,
        class_="count strong" if part > 0.55 else "count",
    )
    return join((box, count))


def _pairs(labels, matrix):
    wrong = matrix * (1 - np.eye(len(labels)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    rows = []
    for flat in order:
        i, j = np.unravel_index(flat, wrong.shape)
        if wrong[i, j]:
            share = wrong[i, j] / matrix[i].sum()
            cells = (labels[i], labels[j], number(int(wrong[i, j])), f"{share:.0%}")
            rows.append(element("tr", *[element("td", cell) for cell in cells]))
    if not rows:
        return None
    head = [element("th", name) for name in ("true", "predicted as", "times", "of the class")]
    return _listing("Most confused", head, rows)


def _listing(caption, head, rows):
    table = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *rows),
        class_="numbers",
    )
    return element("div", table, class_="scroll tall")


def calibration(artifact: Mapping[str, Any]) -> Markup | None:
    """The reliability diagram: how often the classifier is right, by how sure it is.

    Args:
      artifact: `confidence`, `accuracy`, `count`, one entry per bin; optionally `ece`, the expected
        calibration error (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2).
    """
    confidence, accuracy, count = (
        np.nan_to_num(np.asarray(artifact[key], np.float64)) for key in ("confidence", "accuracy", "count")
    )
    if not count.sum():
        return None
    side, left, bottom = 220, 40, 230
    parts = []
    for k in range(6):
        x, y = left + k / 5 * side, bottom - k / 5 * side
        parts.append(element("line", x1=left, x2=left + side, y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{k / 5:g}", x=left - 6, y=y + 3.5, text_anchor="end", class_="axis"))
        parts.append(element("text", f"{k / 5:g}", x=x, y=bottom + 14, text_anchor="middle", class_="axis"))
    width = side / len(count)
    for k, (sure, right, n) in enumerate(zip(confidence, accuracy, count, strict=True)):
        if n:
            parts.append(
                element(
                    "rect",
                    element("title", f"confidence {sure:.2f}, right {right:.2f}, {number(int(n))} examples"),
                    x=f"{left + k * width + 1:.1f}",
                    y=f"{bottom - right * side:.1f}",
                    width=f"{width - 2:.1f}",
                    height=f"{right * side:.1f}",
                    fill_opacity=f"{0.25 + 0.75 * (n / count.max()) ** 0.5:.2f}",
                    class_="right",
                )
            )
    parts.append(element("line", x1=left, y1=bottom, x2=left + side, y2=bottom - side, class_="diagonal"))
    parts.append(
        element("text", "confidence", x=left + side, y=bottom + 28, text_anchor="end", class_="axis")
    )
    ece = artifact.get("ece")
    title = "How often it is right, by its confidence"
    return element(
        "figure",
        element("figcaption", title if ece is None else f"{title} (expected error {number(ece)})"),
        element("svg", *parts, viewBox="0 0 270 262", role="img", aria_label=title),
        element("p", "On the dashed line, confidence is accuracy. Faint bars: few examples.", class_="note"),
        class_="card chart narrow",
    )
