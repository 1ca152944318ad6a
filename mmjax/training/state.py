"""The training state: everything a step reads and writes, besides the data."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mmjax.parallel import placement
from mmjax.training.trees import overlay, pick, select


@flax.struct.dataclass
class TrainState:
    """A pytree that is saved whole.

    Attributes:
      step: int32 [], updates made.
      params: tree of float32 parameters.
      model_state: the model's other collections (BatchNorm statistics), by collection.
      opt_state: of the optimizer.
      ema: exponential moving average of those `params` that are trained, or None.
      key: uint32 [2], data of the random key that every step folds its own from.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: optax.OptState
    ema: Any
    key: jax.Array

    @property
    def eval_params(self) -> Any:
        """What is evaluated: the moving average where there is one."""
        return eval_params(self.params, self.ema)


def eval_params(params: Any, ema: Any) -> Any:
    """`params` with the moving averages of those that have one; `ema` may be None."""
    return params if ema is None else overlay(params, ema)


def abstract_params(model: nn.Module, batch: Mapping[str, Any]) -> Any:
    """Shapes of the parameters, without making them.

    Args:
      model: `model.init(rngs, batch, train=False)` gives its variables.
      batch: arrays or `jax.ShapeDtypeStruct`s, with any number of rows.
    """
    return jax.eval_shape(functools.partial(_init_variables, model, batch), jax.random.key(0))[0]


def abstract_state(
    model: nn.Module,
    batch: Mapping[str, Any],
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    ema: bool = False,
    trainable: Any = None,
    offload: bool = False,
    fsdp_min_size: int = placement.FSDP_MIN_SIZE,
) -> TrainState:
    """Shape, dtype and sharding of every array of the state, without making any.

    Args:
      model, batch: see `abstract_params`.
      tx: the optimizer.
      mesh: where the state will live.
      ema: whether it holds a moving average.
      trainable: tree of bools like the parameters, of which the moving average is; None is all.
      offload: whether the optimizer's state lies in the hosts' memory between steps, see
        `mmjax.parallel.placement.in_host_memory`.
      fsdp_min_size: see `mmjax.parallel.placement.param_shardings`; also the size of what is offloaded.

    Returns:
      A `TrainState` of `jax.ShapeDtypeStruct`s.
    """
    init = functools.partial(_init_state, model, batch, tx, None)
    shapes = jax.eval_shape(init, jax.random.key(0))
    if ema:
        shapes = shapes.replace(ema=select(shapes.params, trainable))
    shardings = placement.state_shardings(shapes, shapes.params, mesh, min_size=fsdp_min_size)
    if offload:
        hosted = placement.in_host_memory(shapes.opt_state, shardings.opt_state, min_size=fsdp_min_size)
        shardings = shardings.replace(opt_state=hosted)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def shardings_of(abstract: Any) -> Any:
    """The shardings of a tree of `jax.ShapeDtypeStruct`s (or arrays)."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def create_state(
    model: nn.Module,
    batch: Mapping[str, Any],
    tx: optax.GradientTransformation,
    abstract: TrainState,
    *,
    seed: int,
) -> TrainState:
    """A fresh state, made where `abstract` says it lives: no device ever holds all of it.

    The numbers depend on the seed alone, not on the mesh.
    """
    init = functools.partial(_init_state, model, batch, tx, abstract.ema)
    return jax.jit(init, out_shardings=shardings_of(abstract))(jax.random.key(seed))


def place_params(params: Any, like: Any) -> Any:
    """Arrays of the host, put where the arrays (or shapes) of `like`, a tree like them, are."""
    return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params, like)


def replace_params(state: TrainState, params: Any, model_state: Any = None) -> TrainState:
    """The state with other parameters, from which its moving average starts too.

    Args:
      state: a fresh one.
      params: a tree like `state.params`, of arrays on the host (say).
      model_state: a tree like `state.model_state`; None leaves that as it is.
    """
    placed = place_params(params, state.params)
    if model_state is not None:
        state = state.replace(model_state=place_params(model_state, state.model_state))
    ema = None if state.ema is None else jax.tree.map(jnp.copy, pick(placed, state.ema))
    return state.replace(params=placed, ema=ema)


def _init_variables(model, batch, key):
    zeros = {name: jnp.zeros(value.shape, value.dtype) for name, value in batch.items()}
    params_key, dropout_key = jax.random.split(key)
    variables = dict(model.init({"params": params_key, "dropout": dropout_key}, zeros, train=False))
    params = variables.pop("params")
    variables.pop("intermediates", None)  # what modules sow is output, not state
    return params, variables


def _init_state(model, batch, tx, ema, key):
    init_key, train_key = jax.random.split(key)
    params, model_state = _init_variables(model, batch, init_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=tx.init(params),
        ema=None if ema is None else jax.tree.map(jnp.copy, pick(params, ema)),
        key=jax.random.key_data(train_key),
    )
