"""What was measured of an experiment, and the verdicts that follow from it."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from mmjax.reproduce.experiment import Claim, Column, Expected, Experiment, Row

# Row -> seed (as text, for JSON) -> what `mmjax.reproduce.runs.record` makes, or {'error': one line}.
Results: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Any]]]


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
    return "within noise" if distance <= 2 * deviation(values) else "not reproduced"


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
            noise = 2 * math.hypot(deviation(high), deviation(low))
            if difference <= -noise:
                return f"does not hold: {high_name} against {low_name}"
            if difference <= noise:
                undecided.append(f"{high_name} against {low_name}")
    if undecided:
        return f"within noise: {', '.join(undecided)}"
    return "holds in single runs" if 1 in counts else "holds"


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of the sample; 0 of one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """One metric of one row.

    Attributes:
      row, column: which.
      values: one per seed that was run, in the unit in which the column is shown.
      expected: what a paper reports, where the row has it.
    """

    row: Row
    column: Column
    values: Sequence[float]
    expected: Expected | None

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the sample; None of fewer than two values."""
        return deviation(self.values) if len(self.values) > 1 else None

    @property
    def verdict(self) -> str:
        """On the expected number; empty where there is none."""
        if self.expected is None:
            return ""
        if not self.values and self.row.needs:
            return f"not run: needs {self.row.needs}"
        return expected_verdict(self.values, self.expected)


class Measured:
    """An experiment beside its results.

    Args:
      experiment: as declared.
      results: of its runs; may be empty, or hold more than is declared.
    """

    def __init__(self, experiment: Experiment, results: Results):
        self.experiment, self._results = experiment, results

    def runs(self) -> list[tuple[Row, int, Mapping[str, Any]]]:
        """(row, seed, what was measured) of the runs that are declared and were made."""
        return [
            (row, seed, self._results[row.name][str(seed)])
            for row in self.experiment.rows
            for seed in self.experiment.seeds
            if str(seed) in self._results.get(row.name, {})
        ]

    def finished(self, row: Row | None = None) -> list[Mapping[str, Any]]:
        """What was measured in the runs, of one row or of all, that did not fail."""
        return [run for other, _, run in self.runs() if "error" not in run and row in (None, other)]

    def failed(self) -> list[tuple[Row, int, Mapping[str, Any]]]:
        """The entries of `runs` that have an error."""
        return [entry for entry in self.runs() if "error" in entry[2]]

    def is_stale(self, row: Row) -> bool:
        """Whether the row was measured with another config than it has now."""
        digests = {run["config_digest"] for other, _, run in self.runs() if other is row}
        return bool(digests) and digests != {row.config_digest()}

    def cell(self, row: Row, column: Column) -> Cell:
        """One metric of one row."""
        metrics = [run["metrics"] for run in self.finished(row)]
        values = [column.scale * found[column.metric] for found in metrics if column.metric in found]
        return Cell(row, column, values, row.expected.get(column.metric))

    def cells(self) -> Iterator[Cell]:
        """Row by row."""
        for row in self.experiment.rows:
            for column in self.experiment.columns:
                yield self.cell(row, column)

    def verdict(self, claim: Claim) -> str:
        """On what should hold between rows."""
        rows = {row.name: row for row in self.experiment.rows}
        (column,) = (c for c in self.experiment.columns if c.metric == claim.metric)

        def values(names):
            return {rows[name].heading: self.cell(rows[name], column).values for name in names}

        return claim_verdict(values(claim.larger), values(claim.smaller))

    def state(self) -> str:
        """How far the experiment is, in a few words."""
        total = len(self.experiment.rows) * len(self.experiment.seeds)
        done, failed = len(self.finished()), len(self.failed())
        needs = sorted({row.needs for row in self.experiment.rows if row.needs and not self.finished(row)})
        parts = [f"{done} of {total} runs" if done else "not run"]
        parts += [f"{failed} failed"] if failed else []
        parts += [f"needs {need}" for need in needs]
        stale = any(map(self.is_stale, self.experiment.rows))
        return ", ".join([*parts, "configs have changed since"] if stale else parts)

    def seconds(self, row: Row) -> float | None:
        """About how long a run of the row takes: the mean of those that were made, else of all rows."""
        found = self.finished(row) or self.finished()
        return statistics.mean(run["wall_seconds"] for run in found) if found else None
