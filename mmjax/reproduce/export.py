"""An experiment's table for other programs (CSV) and for a paper (LaTeX)."""

from __future__ import annotations

import csv
import io

from mmjax.reproduce.measured import Cell, Measured
from mmjax.reproduce.page import NOTHING

_CSV = ("row", "heading", "metric", "column", "n", "mean", "std", "values")
_EXPECTED = ("expected", "tolerance", "verdict", "source")
_TEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
}


def to_csv(measured: Measured) -> str:
    """A line for each metric of each row, in the unit of the column; `values` has one per seed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_CSV, *_EXPECTED])
    for cell in measured.cells():
        writer.writerow(_line(cell))
    return text.getvalue()


def _line(cell: Cell) -> list[object]:
    values = " ".join(f"{value:.6g}" for value in cell.values)
    line = [cell.row.name, cell.row.heading, cell.column.metric, cell.column.heading, len(cell.values)]
    line += ["" if number is None else f"{number:.6g}" for number in (cell.mean, cell.deviation)]
    line.append(values)
    expected = cell.expected
    if expected is None:
        return [*line, *[""] * len(_EXPECTED)]
    return [*line, f"{expected.value:g}", f"{expected.tolerance:g}", cell.verdict, expected.source]


def to_tex(name: str, measured: Measured) -> str:
    """A `tabular` with the rules of the package booktabs: mean and deviation, and below it, where a row
    has it, the expected number in parentheses.

    Args:
      name: of the experiment's directory.
      measured: the experiment and its results.
    """
    columns = measured.experiment.columns
    lines = [
        f"% {measured.experiment.title}: written by `./launch.sh reproduce {name}`; needs booktabs.",
        f"\\begin{{tabular}}{{l{'c' * len(columns)}}}",
        r"\toprule",
        _tex_row(["", *(_escaped(column.heading) for column in columns)]),
        r"\midrule",
    ]
    for row in measured.experiment.rows:
        cells = [measured.cell(row, column) for column in columns]
        lines.append(_tex_row([_escaped(row.heading), *map(_tex_number, cells)]))
        if any(cell.expected for cell in cells):
            lines.append(_tex_row([r"\quad (expected)", *map(_tex_expected, cells)]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex_row(cells):
    return " & ".join(cells) + r" \\"


def _tex_number(cell: Cell) -> str:
    if cell.mean is None:
        return _escaped(NOTHING)
    text = f"{cell.mean:.{cell.column.decimals}f}"
    if cell.deviation is not None:
        text += rf" \pm {cell.deviation:.{cell.column.decimals}f}"
    return f"${text}$"


def _tex_expected(cell: Cell) -> str:
    return f"(${cell.expected.value:g}$)" if cell.expected else ""


def _escaped(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)
