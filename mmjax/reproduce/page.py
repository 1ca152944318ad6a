"""The page of an experiment: its table and verdicts, computed from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from mmjax.reports.format import duration, plain
from mmjax.reproduce.measured import Cell, Measured

NOTHING = "–"


def render(name: str, measured: Measured) -> str:
    """The page `README.md`.

    Args:
      name: of the experiment's directory.
      measured: the experiment and its results.
    """
    experiment = measured.experiment
    parts = [
        f"# {experiment.title}",
        f"<!-- Written by `./launch.sh reproduce {name}` from results.json; do not edit. -->",
        experiment.text.strip(),
        f"Source: {experiment.source}",
        "## Result",
        f"```\n./launch.sh reproduce {name}\n```",
        experiment.cost,
        result_table(measured),
        _notes(measured),
        "![The measured numbers, with what is expected of them](table.svg)" if measured.finished() else "",
        *_expected(measured),
        *_claims(measured),
        *_failed(measured),
        "## Runs",
        _commands(measured),
        _circumstances(measured),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def result_table(measured: Measured) -> str:
    """Only the table of the page."""
    experiment = measured.experiment
    header = ["", *(column.heading for column in experiment.columns), "parameters", "time of a run"]
    header += ["ms per step, at best"] if experiment.step_time else []
    lines = []
    for row in experiment.rows:
        cells = [cell_text(measured, measured.cell(row, column)) for column in experiment.columns]
        runs = measured.finished(row)
        size = f"{runs[0]['parameters']:,}" if runs else NOTHING
        time = duration(statistics.mean(run["wall_seconds"] for run in runs)) if runs else NOTHING
        mark = " \\*" if measured.is_stale(row) else ""
        lines.append([row.heading + mark, *cells, size, time])
        if experiment.step_time:
            steps = [run["step_milliseconds"] for run in runs if "step_milliseconds" in run]
            lines[-1].append(f"{min(steps):.0f}" if steps else NOTHING)
    return _markdown(header, lines)


def cell_text(measured: Measured, cell: Cell) -> str:
    """Mean and deviation, with the number of seeds where some are missing."""
    if cell.mean is None:
        return NOTHING
    text = f"{cell.mean:.{cell.column.decimals}f}"
    if cell.deviation is not None:
        text += f" ± {cell.deviation:.{cell.column.decimals}f}"
    whole = len(cell.values) == len(measured.experiment.seeds)
    return text if whole else f"{text} (n = {len(cell.values)})"


def _notes(measured: Measured) -> str:
    """What the signs in the table mean."""
    experiment = measured.experiment
    seeds = ", ".join(map(str, experiment.seeds))
    text = f"Mean ± standard deviation (of the sample) over {len(experiment.seeds)} seeds ({seeds})"
    text += f"; {NOTHING}: does not apply, or was not run."
    if experiment.step_time:
        text += " Milliseconds per step: in the fastest interval of the logs of all seeds."
    if any(map(measured.is_stale, experiment.rows)):
        text += "\n\n\\* The config has changed since this was measured; run the command again."
    return text


def _expected(measured: Measured) -> list[str]:
    """Published numbers beside the measured ones."""
    lines = []
    for cell in measured.cells():
        if expected := cell.expected:
            shown = f"{expected.value:g} ± {expected.tolerance:g}"
            text = cell_text(measured, cell)
            lines.append([cell.row.heading, cell.column.heading, shown, text, cell.verdict, expected.source])
    if not lines:
        return []
    header = ["", "", "expected ± tolerance", "measured", "verdict", "source"]
    return [
        "## Against the expected numbers",
        _markdown(header, lines),
        "Reproduced: the mean is within the tolerance. Within noise: it is within two standard "
        "deviations of the seeds.",
    ]


def _claims(measured: Measured) -> list[str]:
    """What should hold between rows."""
    if not measured.experiment.claims:
        return []
    lines = [[claim.text, measured.verdict(claim)] for claim in measured.experiment.claims]
    return [
        "## What should hold",
        _markdown(["", "verdict"], lines),
        "Holds: each difference of means is more than twice the standard deviation of the "
        "difference between two runs. Of single runs that deviation is not known.",
    ]


def _failed(measured: Measured) -> list[str]:
    """Runs that ended in an error."""
    lines = [f"- {row.heading}, seed {seed}: {run['error']}" for row, seed, run in measured.failed()]
    return ["## Failed runs", "\n".join(lines)] if lines else []


def _commands(measured: Measured) -> str:
    """What trains each row by hand."""
    lines = [
        [row.heading, f"`{row.command()}`" + (f"; needs {row.needs}" if row.needs else "")]
        for row in measured.experiment.rows
    ]
    return _markdown(["", "command, with `--config.seed=` and one of the seeds"], lines)


def _circumstances(measured: Measured) -> str:
    """When, where and with what it was measured."""
    runs = measured.finished()
    if not runs:
        return ""
    seconds = sum(run["wall_seconds"] for run in runs)
    devices = _distinct(plain(run["devices"]) for run in runs)
    revisions = _distinct(str(run["git_revision"]) for run in runs)
    versions = _distinct(plain(dict(sorted(run["versions"].items()))) for run in runs)
    return (
        f"{len(runs)} runs took {duration(seconds)} in all, on {devices}; revision {revisions}.\n\n"
        f"Versions: {versions}."
    )


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
