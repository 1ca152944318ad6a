"""Everything that follows from a config and its data, before any state exists."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mmjax import components
from mmjax import config as config_lib
from mmjax.data import loading
from mmjax.data.pipeline import TrainPipeline
from mmjax.errors import ConfigError
from mmjax.evaluation.run import build_evaluators, check_groups
from mmjax.model import Model, build_model, output_shapes
from mmjax.model_checks import check_model
from mmjax.objectives import Objective
from mmjax.objectives import check as check_objectives
from mmjax.parallel.mesh import check_batch_size, make_mesh, reader
from mmjax.parallel.placement import check_replicated
from mmjax.training import lora, sizes
from mmjax.training.optimizer import make_optimizer, trainable
from mmjax.training.schedules import ToSteps, to_steps
from mmjax.training.state import TrainState, abstract_params, abstract_state, shardings_of
from mmjax.training.step import make_train_step
from mmjax.types import Batch


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a run is made of.

    Attributes:
      config: resolved, with the sizes that the data gives filled in.
      data: the open sources and tokenizers.
      mesh: the devices.
      pipeline: batches of the training data.
      model, objectives: built from the config; the model has its low-rank factors.
      outputs: shapes of what the model gives, by name.
      tx, learning_rate: the optimizer and its schedule.
      trainable: tree of bools like the parameters.
      abstract: shape, dtype and sharding of the training state.
      total_steps: length of the run.
      to_steps: reads a duration (`every_*`) of a section as steps.
    """

    config: ConfigDict
    data: loading.LoadedData
    mesh: Mesh
    pipeline: TrainPipeline
    model: Model | lora.Adapted
    objectives: dict[str, Objective]
    outputs: dict[str, jax.ShapeDtypeStruct]
    tx: optax.GradientTransformation
    learning_rate: optax.Schedule
    trainable: Any
    abstract: TrainState
    total_steps: int
    to_steps: ToSteps

    @property
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the whole batch, over all processes."""
        return _batch_shapes(self.pipeline.spec(), self.config.batch_size)

    def batch_transforms(self) -> list[Callable[[Batch, jax.Array], Batch]]:
        """What is done to a batch on the devices, in training."""
        return [components.build("batch_transforms", t) for t in self.config.data.batch_transforms]

    def make_train_step(self):
        """The jitted train step, see `mmjax.training.step`."""
        optimizer = self.config.optimizer
        return make_train_step(
            self.model,
            self.objectives,
            self.tx,
            mesh=self.mesh,
            shardings=shardings_of(self.abstract),
            learning_rate=self.learning_rate,
            accumulate_steps=optimizer.accumulate_steps,
            batch_transforms=self.batch_transforms(),
            ema=optimizer.ema,
            trainable=self.trainable,
        )

    def compile_train_step(self) -> jax.stages.Compiled:
        """The train step, compiled once: it takes no other shapes, types or placement."""
        return self.make_train_step().lower(self.abstract, self.batch).compile()


def check_config(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> None:
    """Checks all that the devices and the config alone decide, so that no data is prepared in vain.

    Args:
      config: resolved.
      devices: see `set_up`.

    Raises:
      ConfigError: naming the first key that does not fit.
    """
    plain = config_lib.to_dict(config)
    _mesh(plain, devices)
    check_model(plain)
    check_groups(build_evaluators(plain))
    for section in plain["objectives"].values():
        components.build("objectives", section)
    for section in plain["data"]["batch_transforms"]:
        components.build("batch_transforms", section)
    for _, chain in config_lib.transforms(plain["data"]):
        for section in chain:
            components.build("transforms", section)
    # How long an epoch is decides how many steps these are, and not whether they can be.
    legal = functools.partial(to_steps, batch_size=1, train_examples=1, total_steps=1)
    legal(plain, "total")
    legal(plain["checkpoint"], "every", where="checkpoint")
    for name, section in plain["evals"].items():
        legal(section, "every", where=f"evals.{name}")
    for name in ("warmup", "cooldown"):
        legal(plain["optimizer"]["schedule"], name, where="optimizer.schedule")


def _mesh(config: Mapping[str, Any], devices: Sequence[jax.Device] | None = None) -> Mesh:
    mesh = make_mesh(config["mesh"]) if devices is None else make_mesh(config["mesh"], devices)
    check_batch_size(config["batch_size"], mesh, config["optimizer"]["accumulate_steps"])
    return mesh


def load_data(config: ConfigDict, workdir: pathlib.Path | None) -> loading.LoadedData:
    """Prepares and opens the data, after `check_config`; tokenizers are the run's where it has them."""
    check_config(config)
    loading.prepare(config.data)
    saved = loading.load_tokenizers(workdir / "tokenizers") if workdir else {}
    whole = set(saved) == set(config.data.tokenizers)  # a process may have been killed while saving them
    return loading.load(config.data, saved if whole else None)


def fill_sizes(config: ConfigDict, data: loading.LoadedData) -> ConfigDict:
    """The config with every size left at 0 taken from the data, see `mmjax.training.sizes`."""
    return sizes.fill(config, data.tokenizers, data.class_names)


def set_up(
    config: ConfigDict, data: loading.LoadedData, devices: Sequence[jax.Device] | None = None
) -> Setup:
    """Builds all parts and checks that they fit each other; nothing is computed or written yet.

    Args:
      config: after `fill_sizes`.
      data: from `load_data`.
      devices: of all processes; by default every one there is. They may be those of a machine that is
        only compiled for.

    Raises:
      ConfigError: naming the first key that does not fit.
    """
    plain = config_lib.to_dict(config)
    mesh = _mesh(plain, devices)
    index, count = reader(mesh)
    pipeline = TrainPipeline(
        data.train,
        plain["data"],
        batch_size=config.batch_size,
        seed=config.seed,
        tokenizers=data.tokenizers,
        process_index=index,
        process_count=count,
    )
    spec = pipeline.spec()
    model = build_model(plain, spec)
    objectives = {name: components.build("objectives", s) for name, s in plain["objectives"].items()}
    batch = _batch_shapes(spec, config.batch_size)
    outputs = output_shapes(model, spec)
    check_objectives(objectives, outputs, batch)
    for name in outputs:
        if name in batch:  # evaluators find outputs and batch entries under one roof
            raise ConfigError(f"model.heads.{name}: the batch has an entry '{name}' too; rename one of them")

    durations = functools.partial(
        to_steps, batch_size=config.batch_size, train_examples=pipeline.examples_per_epoch
    )
    total_steps = durations(plain, "total")
    durations = functools.partial(durations, total_steps=total_steps)
    learning_rate = components.build("schedules", plain["optimizer"]["schedule"]).make(total_steps, durations)
    model = lora.adapt(model, plain["lora"], abstract_params(model, batch))
    params = abstract_params(model, batch)
    tx = make_optimizer(plain["optimizer"], params, learning_rate)
    moves = trainable(plain["optimizer"], params)
    abstract = abstract_state(
        model,
        batch,
        tx,
        mesh,
        ema=config.optimizer.ema > 0,
        trainable=moves,
        offload=config.optimizer.offload,
    )
    check_replicated(abstract.params, shardings_of(abstract.params), config.mesh.max_replicated)
    return Setup(
        config=config,
        data=data,
        mesh=mesh,
        pipeline=pipeline,
        model=model,
        objectives=objectives,
        outputs=outputs,
        tx=tx,
        learning_rate=learning_rate,
        trainable=moves,
        abstract=abstract,
        total_steps=total_steps,
        to_steps=durations,
    )


def _batch_shapes(spec: Mapping[str, Any], batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct((batch_size, *shape), dtype) for name, (shape, dtype) in spec.items()}
