"""Training from a config to a finished run directory; it reads top to bottom.

A run goes on from its newest whole checkpoint as if it had never stopped: the state, the data
cursor (the number of steps, since the order of the data is a function of it), and the metrics
gathered since the last line of `metrics.jsonl` all come from the checkpoint.
"""

from __future__ import annotations

import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.data.prefetch import prefetch
from mmjax.errors import NonFiniteError, Preempted
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
    seconds_before = carried.get("seconds", 0.0)
    checkpoint_every = setup.to_steps(config.checkpoint, "every")
    metrics_log = workdir_lib.MetricsLog(workdir, step, config.log, config)
    began, first_step = time.monotonic(), step
    log_began, log_step = began, step
    eval_metrics: dict[str, float] = {}

    batches = prefetch(setup.pipeline.batches(step), batch_sharding(setup.mesh), size=config.data.prefetch)
    with StopRequest() as stop, Progress(setup.total_steps, step, config.batch_size) as progress, batches:
        while step < setup.total_steps:
            state, metrics = train_step(state, next(batches))
            step += 1
            _check_finite(metrics, step, checkpoints)
            window.add(metrics)

            if step % config.log.every_steps == 0 or step == setup.total_steps:
                values = window.pop()
                now = time.monotonic()
                rate = (step - log_step) * config.batch_size / (now - log_began)
                log_began, log_step = now, step
                line = {f"train/{name}": value for name, value in values.items()}
                facts = {"examples": step * config.batch_size, "seconds": seconds_before + now - began}
                metrics_log.write(step, line | facts | {"train/examples_per_second": rate})
                progress.show(step, values["loss"])
            due = evaluation.due(step)
            if due:
                eval_metrics = evaluation.run(due, step, state)
                metrics_log.write(step, eval_metrics)
                log_began, log_step = time.monotonic(), step
            stopping = stop.requested
            last = step == setup.total_steps
            if last or stopping or (checkpoint_every and step % checkpoint_every == 0):
                seconds = seconds_before + time.monotonic() - began
                carried = {"window": window.sums(), "seconds": seconds}
                checkpoints.save(step, state, carried, eval_metrics if due else None)
            if stopping and not last:
                checkpoints.close()
                metrics_log.close()
                raise Preempted(
                    f"stopped by SIGTERM after step {step}, saved in {workdir}; start again to go on"
                )

    checkpoints.close()
    metrics_log.close()
    wall = seconds_before + time.monotonic() - began
    result = {
        "metrics": eval_metrics,
        "steps": step,
        "wall_seconds": wall,
        "examples_per_second": (step - first_step) * config.batch_size / max(time.monotonic() - began, 1e-9),
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "devices": [device.device_kind for device in jax.devices()],
        "versions": workdir_lib.versions(),
        "git_revision": workdir_lib.git_revision(),
        "config": config_lib.to_dict(config),
    }
    if jax.process_index() == 0:
        workdir_lib.write_json(workdir / "result.json", result)
    return result


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
        target = jax.tree.map(np.asarray, state.params)
        params, report = merge_params(target, source["ema"] or source["params"], init.include, init.exclude)
        logging.info("from step %d of %s: %s", source_step, init.run, report)
        state = replace_params(state, params)
    return state, 0, {}


def _check_finite(metrics: dict[str, Any], step: int, checkpoints: Checkpoints) -> None:
    where = pop_non_finite(metrics)
    if not where:
        return
    checkpoints.wait()
    steps = checkpoints.steps()
    last = f"the last good checkpoint is step {steps[-1]}" if steps else "there is no checkpoint yet"
    raise NonFiniteError(
        f"step {step}: not finite: {', '.join(where)}; {last} in {checkpoints.directory}. "
        "Lower optimizer.schedule.peak, set optimizer.clip_norm, or look at the data of this step"
    )


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
