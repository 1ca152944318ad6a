"""The page of an experiment: its table and verdicts, computed from what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmjax.reports.format import duration, plain
from mmjax.reproduce.experiment import Claim, Column, Expected, Experiment, Row

NOTHING = "–"


def expected_verdict(values: Sequence[float], expected: Expected) -> str:
    """Whether a published number was reproduced.

    Args:
      values: one per seed, in the unit of `expected`.

    Returns:
      'reproduced': the mean is within the tolerance. 'within noise': it is within two standard
      deviations of the seeds. 'not reproduced', or 'not run' where there are no values.
    """
    if not values:
        return "not run"
    distance = abs(statistics.mean(values) - expected.value)
    if distance <= expected.tolerance:
        return "reproduced"
    return "within noise" if distance <= 2 * _std(values) else "not reproduced"


def claim_verdict(larger: Mapping[str, Sequence[float]], smaller: Mapping[str, Sequence[float]]) -> str:
    """Whether each mean of `larger` is above each of `smaller`.

    A difference counts where it is more than twice the standard deviation of the difference between
    two runs, sqrt(s_1^2 + s_2^2).

    Args:
      larger, smaller: heading of a row -> one value per seed.

    Returns:
      'holds', or 'within noise' or 'does not hold' with the pair that decides; 'holds in single runs'
      where a row has one value, whose noise nobody knows; 'not run' where a row has none.
    """
    counts = [len(values) for values in [*larger.values(), *smaller.values()]]
    if 0 in counts:
        return "not run"
    undecided = []
    for high_name, high in larger.items():
        for low_name, low in smaller.items():
            difference = statistics.mean(high) - statistics.mean(low)
            noise = 2 * math.hypot(_std(high), _std(low))
            if difference <= -noise:
                return f"does not hold: {high_name} against {low_name}"
            if difference <= noise:
                undecided.append(f"{high_name} against {low_name}")
    if undecided:
        return f"within noise: {', '.join(undecided)}"
    return "holds in single runs" if 1 in counts else "holds"


def render(name: str, experiment: Experiment, results: Mapping[str, Any]) -> str:
    """The page `README.md`.

    Args:
      name: of the experiment's directory.
      results: row -> seed -> what was measured, see `mmjax.reproduce.runs`; may be empty.
    """
    table = _Table(experiment, results)
    parts = [
        f"# {experiment.title}",
        f"<!-- Written by `./launch.sh reproduce {name}` from results.json; do not edit. -->",
        experiment.text.strip(),
        f"Source: {experiment.source}",
        "## Result",
        f"```\n./launch.sh reproduce {name}\n```",
        experiment.cost,
        table.measured(),
        table.notes(),
        *table.expected(),
        *table.claims(),
        *table.failed(),
        "## Runs",
        table.commands(),
        table.circumstances(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def result_table(experiment: Experiment, results: Mapping[str, Any]) -> str:
    """Only the table of the page."""
    return _Table(experiment, results).measured()


def state(experiment: Experiment, results: Mapping[str, Any]) -> str:
    """How far an experiment is, in a few words."""
    table = _Table(experiment, results)
    total, failed = len(experiment.rows) * len(experiment.seeds), len(table.failed_runs())
    done = len(table.runs()) - failed
    parts = [f"{done} of {total} runs" if done else "not run"]
    parts += [f"{failed} failed"] if failed else []
    parts += ["configs have changed since"] if any(map(table.is_stale, experiment.rows)) else []
    return ", ".join(parts)


class _Table:
    """The parts of the page."""

    def __init__(self, experiment: Experiment, results: Mapping[str, Any]):
        self._experiment, self._results = experiment, results

    def runs(self) -> list[tuple[Row, int, Mapping[str, Any]]]:
        """(row, seed, what was measured) of the runs that are declared and were made."""
        return [
            (row, seed, self._results[row.name][str(seed)])
            for row in self._experiment.rows
            for seed in self._experiment.seeds
            if str(seed) in self._results.get(row.name, {})
        ]

    def failed_runs(self) -> list[tuple[Row, int, Mapping[str, Any]]]:
        return [entry for entry in self.runs() if "error" in entry[2]]

    def is_stale(self, row: Row) -> bool:
        """Whether the row was measured with another config than it has now."""
        digests = {run["config_digest"] for other, _, run in self.runs() if other is row}
        return bool(digests) and digests != {row.config_digest()}

    def measured(self) -> str:
        """The table itself."""
        header = ["", *(column.heading for column in self._experiment.columns), "parameters", "time of a run"]
        header += ["ms per step, at best"] if self._experiment.step_time else []
        lines = []
        for row in self._experiment.rows:
            cells = [self._cell(row, column) for column in self._experiment.columns]
            facts = [run for other, _, run in self.runs() if other is row and "error" not in run]
            size = f"{facts[0]['parameters']:,}" if facts else NOTHING
            time = duration(statistics.mean(run["wall_seconds"] for run in facts)) if facts else NOTHING
            mark = " \\*" if self.is_stale(row) else ""
            lines.append([row.heading + mark, *cells, size, time])
            if self._experiment.step_time:
                steps = [run["step_milliseconds"] for run in facts if "step_milliseconds" in run]
                lines[-1].append(f"{min(steps):.0f}" if steps else NOTHING)
        return _markdown(header, lines)

    def notes(self) -> str:
        """What the signs in the table mean."""
        seeds = ", ".join(map(str, self._experiment.seeds))
        text = f"Mean ± standard deviation (of the sample) over {len(self._experiment.seeds)} seeds ({seeds})"
        text += f"; {NOTHING}: does not apply, or was not run."
        if self._experiment.step_time:
            text += " Milliseconds per step: in the fastest interval of the logs of all seeds."
        if any(map(self.is_stale, self._experiment.rows)):
            text += "\n\n\\* The config has changed since this was measured; run the command again."
        return text

    def expected(self) -> list[str]:
        """Published numbers beside the measured ones."""
        lines = []
        for row in self._experiment.rows:
            for column in self._experiment.columns:
                if expected := row.expected.get(column.metric):
                    verdict = expected_verdict(self._values(row, column), expected)
                    shown = f"{expected.value:g} ± {expected.tolerance:g}"
                    cell = self._cell(row, column)
                    lines.append([row.heading, column.heading, shown, cell, verdict, expected.source])
        if not lines:
            return []
        header = ["", "", "expected ± tolerance", "measured", "verdict", "source"]
        return [
            "## Against the expected numbers",
            _markdown(header, lines),
            "Reproduced: the mean is within the tolerance. Within noise: it is within two standard "
            "deviations of the seeds.",
        ]

    def claims(self) -> list[str]:
        """What should hold between rows."""
        if not self._experiment.claims:
            return []
        lines = [[claim.text, self._claim_verdict(claim)] for claim in self._experiment.claims]
        return [
            "## What should hold",
            _markdown(["", "verdict"], lines),
            "Holds: each difference of means is more than twice the standard deviation of the "
            "difference between two runs. Of single runs that deviation is not known.",
        ]

    def failed(self) -> list[str]:
        """Runs that ended in an error."""
        lines = [f"- {row.heading}, seed {seed}: {run['error']}" for row, seed, run in self.failed_runs()]
        return ["## Failed runs", "\n".join(lines)] if lines else []

    def commands(self) -> str:
        """What trains each row by hand."""
        lines = [[row.heading, f"`{row.command()}`"] for row in self._experiment.rows]
        return _markdown(["", "command, with `--config.seed=` and one of the seeds"], lines)

    def circumstances(self) -> str:
        """When, where and with what it was measured."""
        runs = [run for _, _, run in self.runs() if "error" not in run]
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

    def _values(self, row: Row, column: Column) -> list[float]:
        measured = [run["metrics"] for other, _, run in self.runs() if other is row and "error" not in run]
        return [column.scale * m[column.metric] for m in measured if column.metric in m]

    def _cell(self, row: Row, column: Column) -> str:
        values = self._values(row, column)
        if not values:
            return NOTHING
        text = f"{statistics.mean(values):.{column.decimals}f}"
        if len(values) > 1:
            text += f" ± {_std(values):.{column.decimals}f}"
        return text if len(values) == len(self._experiment.seeds) else f"{text} (n = {len(values)})"

    def _claim_verdict(self, claim: Claim) -> str:
        rows = {row.name: row for row in self._experiment.rows}
        (column,) = (c for c in self._experiment.columns if c.metric == claim.metric)

        def values(names):
            return {rows[name].heading: self._values(rows[name], column) for name in names}

        return claim_verdict(values(claim.larger), values(claim.smaller))


def _std(values: Sequence[float]) -> float:
    """Standard deviation of the sample; 0 of one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
