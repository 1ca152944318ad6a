"""Runs what an experiment declares and gathers what was measured."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
from absl import logging
from ml_collections import ConfigDict

from mmjax.components import suggestion
from mmjax.errors import ConfigError, MmjaxError, Preempted
from mmjax.evaluation.run import build_evaluators, metric_groups
from mmjax.reports import write_report
from mmjax.reports.files import read_run
from mmjax.reproduce.experiment import Experiment, Row
from mmjax.training import resume
from mmjax.training import workdir as workdir_lib
from mmjax.training.loop import train
from mmjax.training.setup import fill_sizes, load_data

# Row -> seed (as text, for JSON) -> what `record` makes, or {'error': one line}.
Results: TypeAlias = dict[str, dict[str, dict[str, Any]]]

_FACTS = ("parameters", "steps", "wall_seconds", "devices", "versions", "git_revision")


@dataclasses.dataclass(frozen=True)
class Run:
    """One row with one seed.

    Attributes:
      row, seed: which.
      config: resolved.
      workdir: the run's directory.
    """

    row: Row
    seed: int
    config: ConfigDict
    workdir: pathlib.Path


def plan(experiment: Experiment, folder: pathlib.Path) -> list[Run]:
    """The runs of an experiment, in `<folder>/<row>/seed<k>`: all rows with one seed, then the next.

    Raises:
      ConfigError: a config cannot be run, or no row measures what a column shows.
    """
    runs = [
        Run(row, seed, row.resolve(seed), folder / row.name / f"seed{seed}")
        for seed in experiment.seeds
        for row in experiment.rows
    ]
    groups = set().union(*(metric_groups(build_evaluators(run.config)) for run in runs))
    for column in experiment.columns:
        if not column.metric.startswith("train/") and column.metric.rpartition("/")[0] not in groups:
            raise ConfigError(
                f"column '{column.metric}': no row's evals measure it; they measure: "
                + ", ".join(f"{group}/..." for group in sorted(groups))
            )
    return runs


def check(runs: Sequence[Run]) -> None:
    """Prepares the data of all runs, and checks that each directory is free or this run's own.

    Raises:
      ConfigError, DataError: before anything is run.
    """
    for run in runs:
        workdir_lib.check_place(run.workdir)
        data = load_data(run.config, run.workdir)
        resume.check(run.workdir, fill_sizes(run.config, data), data)


def run_all(experiment: Experiment, runs: Sequence[Run]) -> Results:
    """Trains what is not finished, one run after the other; one that fails does not stop the others.

    Args:
      experiment: for its columns.
      runs: from `plan`, after `check`.

    Returns:
      What was measured. A failed run has its error there.

    Raises:
      Preempted: SIGTERM came; start again to go on.
    """
    digests = {row.name: row.config_digest() for row in experiment.rows}
    metrics = [column.metric for column in experiment.columns]
    results: Results = {row.name: {} for row in experiment.rows}
    seen: set[str] = set()
    for i, run in enumerate(runs):
        logging.info("run %d of %d: %s, seed %d", i + 1, len(runs), run.row.name, run.seed)
        finished = (run.workdir / workdir_lib.RESULT).is_file()
        try:
            result = workdir_lib.read_json(run.workdir / workdir_lib.RESULT) if finished else _run(run)
            measured = record(result, metrics)
            if (run.workdir / "metrics.jsonl").is_file():
                history = read_run(run.workdir).history
                measured |= step_time(history, run.config.batch_size)
                measured["metrics"] |= last_logged(history, metrics)
            seen |= {*result["metrics"], *measured["metrics"]}
        except Preempted:
            raise
        except MmjaxError as error:
            logging.error("run %d of %d failed: %s", i + 1, len(runs), error)
            measured = {"error": str(error)}
        except Exception as error:  # a bug, or a device out of memory, must not cost the other runs
            logging.exception("run %d of %d failed", i + 1, len(runs))
            first_line, *_ = [*str(error).splitlines(), ""]
            measured = {"error": f"{type(error).__name__}: {first_line}"}
        results[run.row.name][str(run.seed)] = {"config_digest": digests[run.row.name], **measured}
        jax.clear_caches()  # the next run's functions are new ones; these would only fill the memory
    for metric in metrics:
        if seen and metric not in seen:
            logging.warning("column '%s': no run measured it%s", metric, suggestion(metric, seen))
    return results


def _run(run: Run) -> dict[str, Any]:
    result = train(run.config, run.workdir)
    write_report(run.workdir)
    return result


def record(result: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    """What of a run's `result.json` is kept: facts, and those of the metrics that it has."""
    measured = {name: result["metrics"][name] for name in metrics if name in result["metrics"]}
    return {"metrics": measured, **{name: result[name] for name in _FACTS}}


def last_logged(history: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, float]:
    """Those of the metrics that the log of training has, 'train/...': their means since the line before the
    last one.
    """
    for line in reversed(history):
        if "train/loss" in line:
            return {name: line[name] for name in metrics if name in line and name.startswith("train/")}
    return {}


def step_time(history: Sequence[Mapping[str, Any]], batch_size: int) -> dict[str, float]:
    """'step_milliseconds' of a run, in the fastest interval of its log: compilation, and whatever else the
    machine does, only add to it. Nothing where the log has no rate.
    """
    rates = [line["train/examples_per_second"] for line in history if "train/examples_per_second" in line]
    return {"step_milliseconds": 1000 * batch_size / max(rates)} if rates else {}


def failures(results: Results) -> list[str]:
    """A line for each run that failed."""
    return [
        f"{row}, seed {seed}: {run['error']}"
        for row, seeds in results.items()
        for seed, run in seeds.items()
        if "error" in run
    ]


def share_compilations(folder: pathlib.Path) -> None:
    """Lets runs that differ only in their seed compile once, through JAX's cache in `folder`."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
