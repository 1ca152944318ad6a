"""Training from a config to a finished run directory; it reads top to bottom.

A run goes on from its newest whole checkpoint as if it had never stopped: the state, the data
cursor (the number of steps, since the order of the data is a function of it), and the metrics
gathered since the last line of `metrics.jsonl` all come from the checkpoint.
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.data.prefetch import prefetch
from mmjax.errors import MmjaxError, NonFiniteError, Preempted
from mmjax.parallel.mesh import batch_sharding
from mmjax.training import workdir as workdir_lib
from mmjax.training.checkpoints import Checkpoints, merge_params, restore_params
from mmjax.training.evaluate import Evaluation
from mmjax.training.progress import Progress
from mmjax.training.setup import Setup, fill_sizes, load_data, set_up
from mmjax.training.signals import StopRequest
from mmjax.training.state import TrainState, create_state, replace_params
from mmjax.training.step import pop_non_finite


def train(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains a resolved config in `workdir`, or goes on where it stopped.

    Returns:
      What `result.json` holds.

    Raises:
      ConfigError, DataError: before anything is computed or written.
      NonFiniteError: the loss or a gradient became NaN or infinite.
      Preempted: SIGTERM came; the state is saved.
    """
    data = load_data(config, workdir)
    config = fill_sizes(config, data)
    setup = set_up(config, data)
    workdir_lib.claim(workdir, config)
    workdir_lib.check_data(workdir, data.facts())
    if (workdir / "result.json").is_file():
        logging.info("%s is finished; remove it or choose another --workdir to train again", workdir)
        return workdir_lib.read_json(workdir / "result.json")
    _save_inputs(setup, workdir)

    checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep=config.checkpoint.keep,
        best_metric=config.checkpoint.best_metric,
        best_mode=config.checkpoint.best_mode,
    )
    evaluation = Evaluation(setup, workdir)
    train_step = setup.make_train_step()
    state, step, carried = _start(setup, checkpoints)
    window = Window(carried.get("window", {}))
    metrics = carried.get("metrics")
    finite = FiniteCheck(checkpoints)
    clock = Clock(carried.get("seconds", 0.0), step, config.batch_size)
    checkpoint_every = setup.to_steps(config.checkpoint, "every")
    metrics_log = workdir_lib.MetricsLog(workdir, step, config.log, config)

    def save(metrics: dict[str, float] | None) -> None:
        finite.flush()
        carried = {"window": window.sums(), "seconds": clock.seconds(), "metrics": metrics}
        checkpoints.save(step, state, carried, metrics)

    def evaluate(names: list[str]) -> dict[str, float]:
        finite.flush()
        try:
            with clock.pause():
                metrics = evaluation.run(names, step, state)
        except MmjaxError:  # an evaluator that cannot run must not cost the training
            save(None)
            checkpoints.close()
            raise
        metrics_log.write(step, metrics)
        return metrics

    batches = prefetch(setup.pipeline.batches(step), batch_sharding(setup.mesh), size=config.data.prefetch)
    with StopRequest() as stop, Progress(setup.total_steps, step, config.batch_size) as progress, batches:
        while step < setup.total_steps:
            state, values = train_step(state, next(batches))
            step += 1
            finite.add(step, values)
            window.add(values)

            if step % config.log.every_steps == 0 or step == setup.total_steps:
                means = window.pop()
                metrics_log.write(step, {f"train/{k}": v for k, v in means.items()} | clock.facts(step))
                progress.show(step, means["loss"])
            due = evaluation.due(step)
            metrics = evaluate(due) if due else None
            stopping = stop.requested and step < setup.total_steps
            if stopping or step == setup.total_steps or (checkpoint_every and step % checkpoint_every == 0):
                save(metrics)
            if stopping:
                checkpoints.close()
                metrics_log.close()
                raise Preempted(
                    f"stopped by SIGTERM, step {step} is saved in {workdir}; start again to go on"
                )

    if metrics is None:  # nothing was evaluated at the last step before the process ended
        metrics = evaluate(evaluation.due(step))
    checkpoints.close()
    metrics_log.close()
    return _finish(setup, workdir, state, metrics, clock)


def _finish(setup, workdir, state, metrics, clock) -> dict[str, Any]:
    """Writes `result.json`."""
    result = {
        "metrics": metrics,
        "steps": setup.total_steps,
        "wall_seconds": clock.seconds(),
        "examples_per_second": clock.examples_per_second(setup.total_steps),
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "devices": [device.device_kind for device in jax.devices()],
        "versions": workdir_lib.versions(),
        "git_revision": workdir_lib.git_revision(),
        "config": config_lib.to_dict(setup.config),
    }
    if jax.process_index() == 0:
        workdir_lib.write_json(workdir / "result.json", result)
    return result


class Clock:
    """Wall time of a run over all its processes, and the rate at which it trains.

    Args:
      seconds: spent before this process.
      step: where this process begins.
      batch_size: examples in a step.
    """

    def __init__(self, seconds: float, step: int, batch_size: int):
        self._before, self._batch_size = seconds, batch_size
        self._began = time.monotonic()
        self._paused = 0.0
        self._first_step = self._log_step = step
        self._log_seconds = 0.0

    def seconds(self) -> float:
        """Wall time of the run up to now."""
        return self._before + time.monotonic() - self._began

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves out of the rate what happens inside."""
        began = time.monotonic()
        yield
        self._paused += time.monotonic() - began

    def facts(self, step: int) -> dict[str, float]:
        """For a line of the log: examples seen, seconds, and the rate since the line before."""
        training = self._training_seconds()
        rate = (step - self._log_step) * self._batch_size / max(training - self._log_seconds, 1e-9)
        self._log_step, self._log_seconds = step, training
        examples = step * self._batch_size
        return {"examples": examples, "seconds": self.seconds(), "train/examples_per_second": rate}

    def examples_per_second(self, step: int) -> float:
        """Rate of this process up to now, compilation included and evaluation not."""
        return (step - self._first_step) * self._batch_size / max(self._training_seconds(), 1e-9)

    def _training_seconds(self) -> float:
        return time.monotonic() - self._began - self._paused


class FiniteCheck:
    """Stops the run at a loss or gradient that is not finite.

    It looks at a step after the next one has been started, so that the devices never wait for the
    host. Nothing is lost by that: a step that is not finite leaves the state as it was.
    """

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints
        self._pending: tuple[int, dict[str, Any]] | None = None

    def add(self, step: int, metrics: dict[str, Any]) -> None:
        """Takes the flags out of a step's metrics, and checks those of the step before."""
        flags = {name: metrics.pop(name) for name in list(metrics) if name.startswith("non_finite")}
        self.flush()
        self._pending = (step, flags)

    def flush(self) -> None:
        """Checks what has been added; `NonFiniteError` names the step and what was not finite."""
        if self._pending is None:
            return
        step, flags = self._pending
        self._pending = None
        where = pop_non_finite(flags)
        if not where:
            return
        self._checkpoints.wait()
        steps = self._checkpoints.steps()
        last = f"the last good checkpoint is step {steps[-1]}" if steps else "there is no checkpoint yet"
        raise NonFiniteError(
            f"step {step}: not finite: {', '.join(where)}; {last} in {self._checkpoints.directory}. "
            "Lower optimizer.schedule.peak, set optimizer.clip_norm, or look at the data of this step"
        )


class Window:
    """Metrics summed on the device since the last line of the log, without waiting for the steps."""

    def __init__(self, sums: dict[str, list[float]]):
        self._sums = {name: (jnp.float32(s), jnp.float32(n)) for name, (s, n) in sums.items()}

    def add(self, metrics: dict[str, Any]) -> None:
        """Adds a step's (sum, count) pairs."""
        self._sums = _add(self._sums, metrics) if self._sums else dict(metrics)

    def sums(self) -> dict[str, list[float]]:
        """name -> [sum, count], to go into a checkpoint."""
        return {name: [float(s), float(n)] for name, (s, n) in jax.device_get(self._sums).items()}

    def pop(self) -> dict[str, float]:
        """name -> mean of what was added, then starts anew; what never counted is left out."""
        sums, self._sums = self.sums(), {}
        return {name: s / n for name, (s, n) in sums.items() if n}


_add = jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b))


def _start(setup: Setup, checkpoints: Checkpoints) -> tuple[TrainState, int, dict[str, Any]]:
    """The state to go on from: the newest checkpoint, else another run's parameters, else fresh."""
    found = checkpoints.restore_latest(setup.abstract)
    if found is not None:
        step, state, carried = found
        logging.info("going on after step %d of %d", step, setup.total_steps)
        return state, step, carried
    state = create_state(setup.model, setup.batch, setup.tx, setup.abstract, seed=setup.config.seed)
    init = setup.config.init
    if init.run:
        source_step, source = restore_params(pathlib.Path(init.run) / "checkpoints", init.step)
        given = source["ema"] or source["params"]
        params, report = merge_params(state.params, given, init.include, init.exclude)
        logging.info(
            "init: from step %d of %s: %d parameters taken, %d fresh (%s), %d of the source not used",
            source_step,
            init.run,
            len(report.taken),
            len(report.fresh),
            ", ".join(report.fresh[:5]) + (", ..." if len(report.fresh) > 5 else "") or "none",
            len(report.unused),
        )
        state = replace_params(state, params)
    return state, 0, {}


def _save_inputs(setup: Setup, workdir: pathlib.Path) -> None:
    """What prediction needs besides the parameters."""
    spec = {
        name: [list(shape), np.dtype(dtype).name] for name, (shape, dtype) in setup.pipeline.spec().items()
    }
    workdir_lib.write_json(workdir / "spec.json", spec)
    for name, tokenizer in setup.data.tokenizers.items():
        path = workdir / "tokenizers" / f"{name}.json"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            tokenizer.save(path)
