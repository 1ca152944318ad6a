"""What a study has found: its trials as rows, and in files.

trials.csv, trials.parquet   a row for each trial, with its point and everything it measured
best.json                    the config of the best setting; itself a `--config`
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import pathlib
import statistics
import uuid
from collections.abc import Sequence
from typing import Any

from optuna.trial import TrialState

from mmjax import config as config_lib
from mmjax.files import write_text
from mmjax.sweeps import claims, points, significance
from mmjax.sweeps.study import ERROR, POINT, Settings, Study, claim_name, first_number
from mmjax.sweeps.worker import lines
from mmjax.training.workdir import RESULT

FINISHED, PRUNED, FAILED, RUNNING, WAITING = "finished", "stopped early", "failed", "running", "waiting"
_STATES = {
    TrialState.COMPLETE: FINISHED,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: FAILED,
    TrialState.RUNNING: RUNNING,
    TrialState.WAITING: WAITING,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One trial.

    Attributes:
      number: of the trial, and its directory.
      state: one of the five above.
      point: what it changes; empty where it is not chosen yet.
      value: of the study's metric: at the end, or where it was stopped.
      metrics: of `result.json`.
      curve: (step, value) of the metric over the training.
      step: the last one in its log.
      rate: examples per second in its log's last line that has it.
      seconds: wall time of its run.
      attempts: workers that began it and did not stop properly before it ended, the last one included.
      error: why it failed, in one line.
    """

    number: int
    state: str
    point: points.Point
    value: float | None
    metrics: dict[str, float]
    curve: list[tuple[int, float]]
    step: int
    rate: float | None
    seconds: float
    attempts: int
    error: str


def collect(study: Study, log: bool = True) -> list[Row]:
    """The rows of a study, by number. Without `log`, logs are read of running trials only."""
    found = []
    for trial in study.trials():
        state, workdir = _STATES[trial.state], study.workdir(trial)
        history = lines(workdir) if log or state == RUNNING else []
        result = _result(workdir) if state == FINISHED else {}
        metric = study.settings.metric
        curve = [(line["step"], line[metric]) for line in history if metric in line]
        rates = [line["train/examples_per_second"] for line in history if "train/examples_per_second" in line]
        done = claims.attempts(study.directory / "claims", claim_name(trial.number))
        if state == FINISHED:
            value = trial.value
        else:
            value = curve[-1][1] if curve else trial.value
        found.append(
            Row(
                number=first_number(trial),
                state=state,
                point=json.loads(trial.user_attrs.get(POINT, "{}")),
                value=value,
                metrics=result.get("metrics", {}),
                curve=curve,
                step=result.get("steps") or max((line["step"] for line in history), default=0),
                rate=result.get("examples_per_second") or (rates[-1] if rates else None),
                seconds=result.get("wall_seconds")
                or max((x.get("seconds", 0.0) for x in history), default=None),
                attempts=done[-1] if done else 0,
                error=trial.user_attrs.get(ERROR, ""),
            )
        )
    return found


@dataclasses.dataclass(frozen=True)
class Setting:
    """The repeats of one point.

    Attributes:
      point: without seed and fold.
      rows: all of its trials.
      mean, std: of the values of those that finished, `std` of the sample; None where too few did,
        `std` also where one is not finite.
      against_best: compared with the best setting, the p value corrected by Holm's method; None for the
        best itself, and without repeats.
    """

    point: points.Point
    rows: list[Row]
    mean: float | None
    std: float | None
    against_best: significance.Comparison | None = None

    def values(self) -> dict[significance.Repeat, float]:
        """Repeat -> value of the trials that finished."""
        return {
            (row.point.get("seed"), row.point.get(points.FOLD)): row.value
            for row in self.rows
            if row.state == FINISHED
        }


def rank(rows: Sequence[Row], settings: Settings) -> list[Setting]:
    """The settings, the best first; those of which nothing finished come last.

    Only listed points have repeats; what a sampler chose stands for itself. A setting of which some
    repeats did not finish comes after those that are complete, since it may have lost its worst ones.
    """
    listed = settings.points is not None
    groups: dict[str, list[Row]] = {}
    for row in rows:
        key = json.dumps(points.setting(row.point), sort_keys=True) if listed else f"{row.number}"
        groups.setdefault(key, []).append(row)
    found = []
    for members in groups.values():
        values = [row.value for row in members if row.state == FINISHED]
        finite = all(map(math.isfinite, values))  # of others there is no standard deviation
        std = statistics.stdev(values) if len(values) > 1 and finite else None
        mean = statistics.mean(values) if values else None
        point = points.setting(members[0].point) if listed else members[0].point
        found.append(Setting(point, members, mean, std))
    sign = -1 if settings.direction == "max" else 1

    def order(setting):
        unfinished = any(row.state != FINISHED for row in setting.rows)
        values = [row.value for row in setting.rows if row.value is not None]  # those stopped early have one
        return (setting.mean is None, unfinished, not values, sign * statistics.mean(values) if values else 0)

    found.sort(key=order)
    return _compared(found, settings) if listed else found


def _compared(found: list[Setting], settings: Settings) -> list[Setting]:
    repeated = set(points.REPEATS) & {key for setting in found for row in setting.rows for key in row.point}
    if not repeated or len(found) < 2 or found[0].mean is None:
        return found
    folds = settings.folds if points.FOLD in repeated else None
    best = found[0].values()
    comparisons = [significance.compare(best, other.values(), folds) for other in found[1:]]
    corrected = significance.holm([c.p if c else None for c in comparisons])
    compared = [
        dataclasses.replace(setting, against_best=dataclasses.replace(c, p=p) if c is not None else None)
        for setting, c, p in zip(found[1:], comparisons, corrected, strict=True)
    ]
    return [found[0], *compared]


def write_tables(study: Study, rows: Sequence[Row], ranked: Sequence[Setting]) -> list[pathlib.Path]:
    """Writes `trials.csv` and `trials.parquet`, and `best.json` where a trial has finished; their paths."""
    table = _table(study, rows)
    names = list(dict.fromkeys(name for line in table for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for line in table:
        writer.writerow({k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in line.items()})
    written = [study.directory / "trials.csv", study.directory / "trials.parquet"]
    write_text(written[0], text.getvalue())
    _write_parquet(written[1], table, names)
    if ranked and ranked[0].mean is not None:
        written.append(study.directory / "best.json")
        write_text(written[-1], config_lib.to_json(study.settings.config(ranked[0].point)))
    return written


def _table(study: Study, rows: Sequence[Row]) -> list[dict[str, Any]]:
    keys = list(dict.fromkeys(key for row in rows for key in row.point))
    metrics = sorted({name for row in rows for name in row.metrics})
    return [
        {
            "trial": row.number,
            "state": row.state,
            "value": row.value,
            **{key if key == points.FOLD else f"config.{key}": row.point.get(key) for key in keys},
            "step": row.step,
            "seconds": row.seconds,
            "examples_per_second": row.rate,
            "attempts": row.attempts,
            "error": row.error,
            "directory": f"trials/{claim_name(row.number)}",
            **{name: row.metrics.get(name) for name in metrics},
        }
        for row in rows
    ]


def _write_parquet(path: pathlib.Path, table: list[dict[str, Any]], names: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {name: _column([line[name] for line in table]) for name in names}
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        pyarrow.parquet.write_table(pyarrow.table(columns), partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _column(values: list[Any]) -> list[Any]:
    """Values of one type: numbers of two kinds as floats, else what differs as JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1 or kinds & {list, dict}:
        return [None if value is None else json.dumps(value) for value in values]
    return values


def _result(workdir: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads((workdir / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the trial's directory was moved or removed; its value is in the storage
