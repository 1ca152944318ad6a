"""A worker: claims trials of a study one by one and trains them, until none is left.

Whoever has a trial's claim works on it. A trial whose worker died is taken up by the next worker that
looks for one: it stays the same trial, in the same directory, and its run goes on from its checkpoint.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import optuna
from absl import logging
from optuna.trial import TrialState

from mmjax.components import suggestion
from mmjax.errors import ConfigError, MmjaxError, Preempted
from mmjax.reproduce.runs import share_compilations
from mmjax.sweeps import algorithms, claims, points, space
from mmjax.sweeps.study import ERROR, POINT, Settings, Study, claim_name, first_number
from mmjax.training.loop import train

_SECONDS_BETWEEN_LOOKS = 2.0


class Pruned(Exception):
    """The pruner has stopped the trial."""


def work(study: Study, parent: int | None = None) -> None:
    """Runs trials until all of the study are finished, also those that other workers leave behind.

    Args:
      study: to work on.
      parent: process that started this one; when it is gone, this one saves and stops.

    Raises:
      Preempted: SIGTERM came; the trial is saved, and waits for a worker.
    """

    def stop(signum, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not disturb the saving
        raise Preempted("the worker was stopped by SIGTERM; start the sweep again to go on")

    before = signal.signal(signal.SIGTERM, stop)
    share_compilations(study.directory / "compilations")
    try:
        while study.unfinished():
            claimed = _claim(study)
            if claimed is None:  # others work on what is left, and may die
                _check_parent(parent)
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                continue
            trial, claim = claimed
            try:
                claim.beat(_judged_dead, lambda: _check_parent(parent))
                run_trial(study, trial)
            except BaseException:  # asked to stop: this was no attempt
                claim.give_back()
                raise
            claim.drop()
            jax.clear_caches()  # the next trial's functions are new ones
    finally:
        signal.signal(signal.SIGTERM, before)


def _claim(study: Study) -> tuple[optuna.Trial, claims.Claim] | None:
    """A trial that nobody works on, if there is one; it is this process's until the claim ends."""
    folder = study.directory / "claims"
    for found in study.unfinished():
        claim = claims.take(folder, claim_name(found.number))
        if claim is None:
            continue
        optuna_study = study.optuna(found.number)
        storage = optuna_study._storage
        now = storage.get_trial(found._trial_id)
        if now.state.is_finished():
            claim.give_back()
            continue
        if claim.attempt > 1 + study.settings.retries:
            died = claim.attempt - 1
            logging.error("trial %d: its worker died %d times; it is given up", found.number, died)
            _finish(optuna_study, now, TrialState.FAIL, error=f"its worker was killed {died} times")
            claim.give_back()
            continue
        if now.state == TrialState.WAITING:
            storage.set_trial_state_values(found._trial_id, TrialState.RUNNING)
        else:
            logging.info("trial %d: its worker is gone; taking it up", found.number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.Trial(optuna_study, found._trial_id), claim
    return None


def run_trial(study: Study, trial: optuna.Trial) -> None:
    """Trains a trial and records how it ended; an error is recorded, and ends nothing else.

    Raises:
      Preempted: SIGTERM came; the trial is saved.
    """
    workdir, settings, number = study.workdir(trial), study.settings, first_number(trial)
    try:
        point = _point(trial, settings)
        logging.info("trial %d: %s", number, points.label(point))
        observe = Observer(trial, settings, workdir)
        result = train(settings.config(point), workdir, observe=observe)
        value = measured(result["metrics"], settings.metric)
    except Preempted:
        raise
    except Pruned:
        logging.info("trial %d is stopped early", number)
        _finish(study.optuna(), trial, TrialState.PRUNED)
    except MmjaxError as error:
        logging.error("trial %d failed: %s", number, error)
        _finish(study.optuna(), trial, TrialState.FAIL, error=" ".join(str(error).splitlines()))
    except Exception as error:  # a bug, or a device out of memory, must not cost the other trials
        logging.exception("trial %d failed", number)
        first_line, *_ = [*str(error).splitlines(), ""]
        _finish(study.optuna(), trial, TrialState.FAIL, error=f"{type(error).__name__}: {first_line}")
    else:
        logging.info("trial %d: %s = %.5g", number, settings.metric, value)
        _finish(study.optuna(), trial, TrialState.COMPLETE, value=value)


class Observer:
    """Reports the metric of evaluations during training, and stops the trial where the pruner says so.

    Evaluations are counted from 1, and trials compared at the same one: with batches of other sizes
    the same share of the training has another step. `metrics.jsonl` has the count, also after a restart.
    """

    def __init__(self, trial: optuna.Trial, settings: Settings, workdir: pathlib.Path):
        self._trial, self._settings, self._workdir = trial, settings, workdir

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `mmjax.training.loop.train`."""
        metric = self._settings.metric
        if metric not in metrics:
            return  # of another evaluator's round, or not defined there; the end of the training decides
        steps = {s for s, _ in history(self._workdir, metric) if s <= step}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a value reported before, by a worker that died
            self._trial.report(metrics[metric], len(steps))
        if self._trial.should_prune():
            raise Pruned


def history(workdir: pathlib.Path, metric: str) -> list[tuple[int, float]]:
    """(step, value) of a metric, as far as a run's `metrics.jsonl` has it."""
    return [(line["step"], line[metric]) for line in lines(workdir) if metric in line]


def lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; one that is half written is left out."""
    path, found = workdir / "metrics.jsonl", []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            found.append(line)
    return found


def measured(metrics: Mapping[str, float], metric: str) -> float:
    """The metric's value; a `ConfigError` where the evaluators did not give it."""
    if metric not in metrics:
        group = metric.rpartition("/")[0]
        near = sorted(name for name in metrics if name.rpartition("/")[0] == group)
        raise ConfigError(
            f"--metric={metric}: was not measured{suggestion(metric, metrics)}; '{group}' has: "
            + ", ".join(near)
        )
    return metrics[metric]


def _point(trial: optuna.Trial, settings: Settings) -> points.Point:
    """The point of a trial; chosen now, where it is not yet."""
    if POINT in trial.user_attrs:
        return json.loads(trial.user_attrs[POINT])
    point = {}
    for key, dimension in space.from_json(settings.space).items():
        point[key] = algorithms.suggest(trial, key, dimension)
    trial.set_user_attr(POINT, json.dumps(point))
    return point


def _finish(study, trial, state: TrialState, *, value: float | None = None, error: str = "") -> None:
    if error:
        study._storage.set_trial_user_attr(trial._trial_id, ERROR, error)
    study.tell(trial.number, value, state=state)


def _judged_dead() -> None:
    logging.error("another worker has taken over this trial, since this one gave no sign of life; stopping")
    logging.flush()
    os._exit(MmjaxError.exit_code)


def _check_parent(parent: int | None) -> None:
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
