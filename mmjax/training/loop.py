"""Training from a config to a finished run directory; it reads top to bottom.

A run goes on from its newest whole checkpoint as if it had never stopped: the state, the data
cursor (the number of steps, since the order of the data is a function of it), and the metrics
gathered since the last line of `metrics.jsonl` all come from the checkpoint.
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.data.prefetch import prefetch
from mmjax.errors import DataError, NonFiniteError, Preempted
from mmjax.evaluation.run import build_evaluators, check_metric
from mmjax.files import write_json
from mmjax.interop.init import check_architectures, published_start
from mmjax.parallel.mesh import batch_sharding
from mmjax.parallel.placement import largest_replicated
from mmjax.training import lora, resume, speed
from mmjax.training import workdir as workdir_lib
from mmjax.training.checkpoint_files import complete_steps
from mmjax.training.checkpoints import Checkpoints, merge_model_state, merge_params, restore_params
from mmjax.training.evaluate import Evaluation
from mmjax.training.model_flops import model_flops
from mmjax.training.profiler import Profiler
from mmjax.training.progress import Progress
from mmjax.training.setup import Setup, fill_sizes, load_data, set_up
from mmjax.training.signals import StopRequest
from mmjax.training.state import TrainState, create_state, eval_params, replace_params, shardings_of
from mmjax.training.step import pop_non_finite
from mmjax.training.trees import select


def train(
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    profile_steps: int = 0,
    observe: Callable[[int, Mapping[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Trains a resolved config in `workdir`, or goes on where it stopped.

    Args:
      config: resolved.
      workdir: the run's directory.
      profile_steps: how many steps of this process JAX's profiler traces, into `<workdir>/profile`.
      observe: called as `observe(step, metrics)` after each evaluation but the last, when its line of
        `metrics.jsonl` is written. What it raises ends the run without a save.

    Returns:
      What `result.json` holds.

    Raises:
      ConfigError, DataError: before anything is written to `workdir`, unless they come from a record
        or an evaluator.
      NonFiniteError: the loss or a gradient became NaN or infinite.
      Preempted: SIGTERM came; the state is saved.
    """
    workdir_lib.check_place(workdir)
    result = resume.finished(workdir, config)
    if result is not None:
        return result
    _check_run(config, workdir)
    data = load_data(config, workdir)
    config = fill_sizes(config, data)
    setup = set_up(config, data)
    resume.check(workdir, config, data)
    evaluation = Evaluation(setup, workdir)
    checkpoint_every = setup.to_steps(config.checkpoint, "every", where="checkpoint")
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep=config.checkpoint.keep,
        best_metric=config.checkpoint.best_metric,
        best_mode=config.checkpoint.best_mode,
    )
    _log_replicated(setup)
    state, step, carried = _start(setup, checkpoints)
    logging.info("%s of %s parameters are trained", f"{_trained(setup):,}", f"{_size(state.params):,}")
    window = Window(carried.get("window", {}))
    metrics = carried.get("metrics")
    peak = speed.peak_flops(setup.mesh.devices.flat, config.dtype)
    clock = speed.Clock(carried.get("clock", {}), step, config.batch_size, model_flops(setup), peak)
    train_step = _compile(setup) if setup.total_steps else None
    finite = FiniteCheck(checkpoints)
    first_process = jax.process_index() == 0
    # All processes save together; an error that came to one of several leaves the others in the step.
    alone = jax.process_count() == 1
    lock = workdir_lib.lock(workdir) if first_process else contextlib.nullcontext()
    if first_process:
        workdir_lib.write_inputs(workdir, config, data.facts(), setup.pipeline.spec(), data.tokenizers)
    evaluates_start = not setup.total_steps and metrics is None  # what an earlier start wrote of it goes
    metrics_log = workdir_lib.MetricsLog(
        workdir, -1 if evaluates_start else step, config.log, config, writes=first_process
    )

    def save(metrics: dict[str, float] | None) -> None:
        finite.flush()
        with clock.saving():
            carried = {"window": window.sums(), "clock": clock.state(), "metrics": metrics}
            checkpoints.save(step, state, carried, metrics)

    def evaluate(names: list[str]) -> dict[str, float]:
        finite.flush()
        try:
            with clock.pause():
                metrics = evaluation.run(names, step, state)
        except Exception:  # an evaluator that cannot run must not cost the training
            if alone:
                save(None)
            raise
        metrics_log.write(step, metrics)
        if observe is not None and step < setup.total_steps:
            observe(step, metrics)
        return metrics

    with (
        lock,
        contextlib.closing(checkpoints),
        contextlib.closing(metrics_log),
        _batches(setup, step) as batches,
        Progress(setup.total_steps, step, config.batch_size) as progress,
        StopRequest() as stop,
        Profiler(workdir, profile_steps) as profiler,
        clock.training(),
    ):
        if evaluates_start:
            metrics = evaluate(evaluation.due(step))
            save(metrics)
        elif step and metrics is None and evaluation.due(step):  # an evaluator failed, then the run ended
            metrics = evaluate(evaluation.due(step))
        while step < setup.total_steps:
            try:
                with clock.waiting_for_data():
                    batch = next(batches)
            except Exception:  # nor must a record that cannot be read
                if step and alone:
                    save(metrics)
                raise
            with profiler.step(step):
                state, values = train_step(state, batch)
            profiler.after(values)
            step += 1
            finite.add(step, values)
            window.add(values)

            if step % config.log.every_steps == 0 or step == setup.total_steps:
                finite.flush()
                means = window.pop()
                facts = clock.facts(step)
                metrics_log.write(step, {f"train/{k}": v for k, v in means.items()} | facts)
                progress.show(step, means["loss"], facts["train/mfu"])
            due = evaluation.due(step)
            metrics = evaluate(due) if due else None
            stopping = stop.at(step) and step < setup.total_steps
            if stopping or step == setup.total_steps or (checkpoint_every and step % checkpoint_every == 0):
                save(metrics)
            if stopping:
                raise Preempted(
                    f"stopped by SIGTERM, step {step} is saved in {workdir}; start again to go on"
                )
    return _finish(setup, workdir, state, metrics or {}, clock)


def _check_run(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Checks what only a run needs, before its data is prepared."""
    workdir_lib.check_log(config.log)
    if config.checkpoint.best_metric is not None:
        check_metric(build_evaluators(config), config.checkpoint.best_metric, "checkpoint.best_metric")
    check_architectures(config_lib.to_dict(config)["model"], config.init.weights)
    source = pathlib.Path(config.init.run) / "checkpoints"
    begins = not complete_steps(workdir / "checkpoints")  # else the run goes on from its own
    if config.init.run and begins and not complete_steps(source):
        raise DataError(
            f"init.run: {source}: holds no checkpoint that is whole; name another run's directory"
        )


def _finish(setup, workdir, state, metrics, clock) -> dict[str, Any]:
    """Writes `result.json`."""
    result = {
        "metrics": metrics,
        "steps": setup.total_steps,
        **clock.summary(setup.total_steps),
        "parameters": _size(state.params),
        "trained_parameters": _trained(setup),
        "devices": [device.device_kind for device in jax.devices()],
        "versions": workdir_lib.versions(),
        "git_revision": workdir_lib.git_revision(),
        "config": config_lib.to_dict(setup.config),
    }
    if jax.process_index() == 0:
        write_json(workdir / workdir_lib.RESULT, result)
    return result


def _compile(setup: Setup) -> jax.stages.Compiled:
    began = time.monotonic()
    train_step = setup.compile_train_step()
    logging.info("the train step was compiled in %.1f s", time.monotonic() - began)
    return train_step


def _log_replicated(setup: Setup) -> None:
    """Says which parameters stayed whole, where the mesh splits parameters."""
    if setup.mesh.shape["fsdp"] * setup.mesh.shape["tensor"] == 1:
        return
    largest = largest_replicated(setup.abstract.params, shardings_of(setup.abstract.params))
    shown = ", ".join(f"{name} ({size / 2**20:,.1f} MiB)" for name, size in largest)
    logging.info("the largest parameters that every device holds whole: %s", shown or "none")


def _batches(setup: Setup, step: int) -> contextlib.AbstractContextManager:
    """The training batches from `step` on; a run of no steps reads none."""
    if not setup.total_steps:
        return contextlib.nullcontext()
    sharding = batch_sharding(setup.mesh)
    return prefetch(setup.pipeline.batches(step), sharding, size=setup.config.data.prefetch)


def _trained(setup: Setup) -> int:
    """How many parameters move."""
    return _size(select(setup.abstract.params, setup.trainable)) if setup.total_steps else 0


def _size(params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


class FiniteCheck:
    """Stops the run at a loss or gradient that is not finite.

    It looks at a step after the next one has been started, so that the devices never wait for the
    host. What they made of the state by then is never saved: `flush` comes before every save.
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
    return initial_state(setup), 0, {}


def initial_state(setup: Setup) -> TrainState:
    """A fresh state, with published weights where the config names some, then those of a run `init` names.

    Raises:
      DataError: the weights cannot be had, or the other run has no checkpoint that is whole.
      ConfigError: they do not fit, or none is taken.
    """
    state = create_state(setup.model, setup.batch, setup.tx, setup.abstract, seed=setup.config.seed)
    variables = {"params": state.params, **state.model_state}
    init, section = setup.config.init, config_lib.to_dict(setup.config.model)
    published, reports = published_start(section, variables, init.weights)
    for part, report in reports.items():
        logging.info("%s: %s", part, report)
    if reports.get("heads") and reports["heads"].fresh and not setup.total_steps:
        logging.warning("heads that are not in the weights are evaluated as they start: %s", reports["heads"])
    if reports:
        params, _ = merge_params(state.params, published["params"])
        state = replace_params(state, params, merge_model_state(state.model_state, published))
    if not init.run:
        return state
    step, source = restore_params(pathlib.Path(init.run) / "checkpoints", init.step)
    given = eval_params(source["params"], source["ema"])
    if lora.LORA in given:  # what they make of the kernels is taken, and not the factors
        given = lora.merge(given, workdir_lib.read_config(pathlib.Path(init.run))["lora"])
    params, report = merge_params(state.params, given, init.include, init.exclude)
    model_state = merge_model_state(state.model_state, source["model_state"], init.include, init.exclude)
    logging.info(
        "init: from step %d of %s: %d parameters taken, %d fresh (%s), %d of the source not used",
        step,
        init.run,
        len(report.taken),
        len(report.fresh),
        ", ".join(report.fresh[:5]) + (", ..." if len(report.fresh) > 5 else "") or "none",
        len(report.unused),
    )
    return replace_params(state, params, model_state)
