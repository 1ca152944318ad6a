"""Runs what an experiment declares, and records what was measured."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import jax
from absl import logging
from ml_collections import ConfigDict

from mmjax.components import suggestion
from mmjax.errors import ConfigError, MmjaxError, Preempted
from mmjax.evaluation.run import build_evaluators, metric_groups
from mmjax.reports import write_report
from mmjax.reports.files import read_run
from mmjax.reproduce.children import Children
from mmjax.reproduce.experiment import Experiment, Row
from mmjax.training import resume
from mmjax.training import workdir as workdir_lib
from mmjax.training.loop import train
from mmjax.training.setup import fill_sizes, load_data

_FACTS = ("parameters", "steps", "wall_seconds", "devices", "versions", "git_revision")
COMPILATIONS = "compilations"  # folder of JAX's cache, which all runs share


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

    @property
    def finished(self) -> bool:
        return (self.workdir / workdir_lib.RESULT).is_file()


# Takes what was measured in a run, or {'error': one line}.
Keep: TypeAlias = Callable[[Run, Mapping[str, Any]], None]


def plan(
    experiment: Experiment,
    folder: pathlib.Path,
    rows: Collection[str] | None = None,
    seeds: Collection[int] | None = None,
) -> list[Run]:
    """The runs of an experiment, in `<folder>/<row>/seed<k>`: all rows with one seed, then the next.

    Args:
      experiment: as declared.
      folder: of its runs.
      rows, seeds: only these of it; by default all seeds, and the rows that need nothing special.

    Raises:
      ConfigError: a config cannot be run, no row measures what a column shows, or a row or seed is not
        one of the experiment's.
    """
    chosen = _choose(experiment, rows)
    for seed in seeds or ():
        if seed not in experiment.seeds:
            known = ", ".join(map(str, experiment.seeds))
            raise ConfigError(f"--seeds: {seed} is none of the experiment's; it has: {known}")
    runs = [
        Run(row, seed, row.resolve(seed), folder / row.name / f"seed{seed}")
        for seed in experiment.seeds
        if seeds is None or seed in seeds
        for row in chosen
    ]
    groups = set().union(*(metric_groups(build_evaluators(run.config)) for run in runs))
    if rows is None:
        for column in experiment.columns:
            trained = column.metric.startswith("train/")
            if runs and not trained and column.metric.rpartition("/")[0] not in groups:
                raise ConfigError(
                    f"column '{column.metric}': no row's evals measure it; they measure: "
                    + ", ".join(f"{group}/..." for group in sorted(groups))
                )
    return runs


def _choose(experiment: Experiment, names: Collection[str] | None) -> list[Row]:
    if names is None:
        return [row for row in experiment.rows if not row.needs]
    known = [row.name for row in experiment.rows]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--rows: '{name}' is unknown{suggestion(name, known)}; it has: {', '.join(known)}"
            )
    return [row for row in experiment.rows if row.name in names]


def check(runs: Sequence[Run]) -> None:
    """Prepares the data of all runs, and checks that each directory is free or this run's own.

    Raises:
      ConfigError, DataError: before anything is run.
    """
    for run in runs:
        workdir_lib.check_place(run.workdir)
        data = load_data(run.config, run.workdir)
        resume.check(run.workdir, fill_sizes(run.config, data), data)


def run_all(
    experiment: Experiment,
    runs: Sequence[Run],
    keep: Keep,
    *,
    jobs: int = 1,
    may_start: Callable[[Run], bool] = lambda run: True,
) -> None:
    """Trains what is not finished; a run that fails does not stop the others.

    Args:
      experiment: for its columns.
      runs: from `plan`, after `check`.
      keep: called with each run and what was measured in it, as soon as it is finished.
      jobs: how many run at a time; more than one are processes of their own.
      may_start: whether there is time for a run that is not finished; asked just before it would begin.

    Raises:
      Preempted: SIGTERM came; start again to go on.
    """
    metrics = [column.metric for column in experiment.columns]
    seen: set[str] = set()

    def finish(run: Run, error: str | None) -> None:
        measured = {"error": error} if error is not None else _measured(run, metrics, seen)
        keep(run, {"config_digest": run.row.config_digest(), **measured})

    waiting = [run for run in runs if not run.finished]
    for run in runs:
        if run.finished:
            finish(run, None)
    if jobs == 1:
        for i, run in enumerate(waiting):
            if may_start(run):
                logging.info("run %d of %d: %s, seed %d", i + 1, len(waiting), run.row.name, run.seed)
                finish(run, _train(run))
    else:
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool, Children() as children:

            def start(run: Run) -> tuple[Run, str | None] | None:
                if not may_start(run):
                    return None
                cache = run.workdir.parents[1] / COMPILATIONS
                return run, children.train(run.row, run.seed, run.workdir, cache)

            for done in concurrent.futures.as_completed([pool.submit(start, run) for run in waiting]):
                if done.result() is not None:
                    finish(*done.result())
    for metric in metrics:
        if seen and metric not in seen:
            logging.warning("column '%s': no run measured it%s", metric, suggestion(metric, seen))


def _train(run: Run) -> str | None:
    """Trains in this process; what went wrong, in one line."""
    try:
        train(run.config, run.workdir)
        write_report(run.workdir)
    except Preempted:
        raise
    except MmjaxError as error:
        logging.error("%s, seed %d failed: %s", run.row.name, run.seed, error)
        return str(error)
    except Exception as error:  # a bug, or a device out of memory, must not cost the other runs
        logging.exception("%s, seed %d failed", run.row.name, run.seed)
        first_line, *_ = [*str(error).splitlines(), ""]
        return f"{type(error).__name__}: {first_line}"
    finally:
        jax.clear_caches()  # the next run's functions are new ones; these would only fill the memory
    return None


def _measured(run: Run, metrics: Sequence[str], seen: set[str]) -> dict[str, Any]:
    result = workdir_lib.read_json(run.workdir / workdir_lib.RESULT)
    measured = record(result, metrics)
    if (run.workdir / "metrics.jsonl").is_file():
        history = read_run(run.workdir).history
        measured |= step_time(history, run.config.batch_size)
        measured["metrics"] |= last_logged(history, metrics)
    seen |= {*result["metrics"], *measured["metrics"]}
    return measured


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
    """'step_milliseconds' of a run, in the fastest interval of its log: whatever else the machine does only
    adds to it. Nothing where the log has no rate.
    """
    rates = [line["train/examples_per_second"] for line in history if "train/examples_per_second" in line]
    return {"step_milliseconds": 1000 * batch_size / max(rates)} if rates else {}


def share_compilations(folder: pathlib.Path) -> None:
    """Lets runs that differ only in their seed compile once, through JAX's cache in `folder`."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
