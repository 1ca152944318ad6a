"""The train step and the evaluation step: each one jitted function on the whole mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mmjax import objectives as objectives_lib
from mmjax.parallel.mesh import activation_rules, batch_sharding, replicated
from mmjax.parallel.placement import in_device_memory, is_in_host_memory
from mmjax.training.gradients import make_gradient_function
from mmjax.training.state import TrainState
from mmjax.training.trees import pick
from mmjax.types import Batch

Metrics = objectives_lib.Metrics


def make_train_step(
    model: nn.Module,
    objectives: Mapping[str, objectives_lib.Objective],
    tx: optax.GradientTransformation,
    *,
    mesh: Mesh,
    shardings: TrainState,
    learning_rate: optax.Schedule,
    accumulate_steps: int = 1,
    batch_transforms: Sequence[Callable[[Batch, jax.Array], Batch]] = (),
    ema: float = 0.0,
    trainable: Any = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """One update of the state by one batch.

    Args:
      model: called as `model.apply(variables, batch, train=True)`, returns `Outputs`.
      objectives: by name.
      tx: the optimizer, see `mmjax.training.optimizer.make_optimizer`.
      mesh: the mesh.
      shardings: of the state, see `mmjax.training.state.abstract_state`.
      learning_rate: the optimizer's schedule, for the metrics.
      accumulate_steps: microbatches, see `mmjax.training.gradients`.
      batch_transforms: `(batch, key) -> batch`, in order, before the model.
      ema: decay of the moving average of the parameters, where the state has one.
      trainable: tree of bools like the parameters, see `mmjax.training.optimizer.trainable`.

    Returns:
      Jitted `(state, batch) -> (state, metrics)`. The given state is consumed. Metrics are
      name -> (sum, count): those of the objectives, 'grad_norm' (before clipping), 'learning_rate'
      and what `non_finite` reads. Where the loss or a gradient is not finite, neither is the
      returned state: the caller looks at the flags before it saves, and lets it go.
    """
    loss_and_gradients = make_gradient_function(
        model, objectives, shardings.params, accumulate_steps=accumulate_steps, trainable=trainable
    )
    offloaded = any(map(is_in_host_memory, jax.tree.leaves(shardings.opt_state)))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        model_key, *transform_keys = jax.random.split(key, 1 + len(batch_transforms))
        for transform, transform_key in zip(batch_transforms, transform_keys, strict=True):
            batch = transform(batch, transform_key)
        with activation_rules(mesh):
            result = loss_and_gradients(state.params, state.model_state, batch, model_key)
        gradients = jax.lax.with_sharding_constraint(result.gradients, shardings.params)

        opt_state = state.opt_state
        if offloaded:
            # Only then, so that there is never room needed for it beside the activations.
            gradients, opt_state = jax.lax.optimization_barrier((gradients, opt_state))
            opt_state = jax.device_put(opt_state, in_device_memory(shardings.opt_state))
        updates, opt_state = tx.update(gradients, opt_state, state.params)
        opt_state = jax.device_put(opt_state, shardings.opt_state) if offloaded else opt_state
        params = optax.apply_updates(state.params, updates)
        average = state.ema
        if average is not None:
            average = jax.tree.map(
                lambda old, new: old + (1.0 - ema) * (new - old), average, pick(params, average)
            )
        updated = TrainState(state.step + 1, params, result.model_state, opt_state, average, state.key)

        norms = {module: optax.tree.norm(tree) for module, tree in gradients.items()}
        not_finite = _not_finite(result.loss, result.outputs, norms)
        any_not_finite = jnp.stack(list(not_finite.values())).any()
        numbers = {"grad_norm": optax.tree.norm(norms), "learning_rate": learning_rate(state.step)}
        numbers |= {_PREFIX: any_not_finite}
        numbers |= {f"{_PREFIX}/{where}": flag for where, flag in not_finite.items()}
        metrics = result.metrics | {name: (jnp.float32(x), jnp.float32(1)) for name, x in numbers.items()}
        return updated, metrics

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
    )


_PREFIX = "non_finite"


def _not_finite(loss, outputs, gradient_norms) -> dict[str, jax.Array]:
    """Where -> bool []: whether there is a NaN or an infinity (or a gradient whose square is one)."""
    values = {"loss": loss}
    values |= {f"outputs/{name}": x for name, x in outputs.items()}
    values |= {f"gradients/{module}": x for module, x in gradient_norms.items()}
    return {where: ~jnp.isfinite(x).all() for where, x in values.items()}


def pop_non_finite(metrics: dict[str, Any]) -> list[str]:
    """Takes the non-finite flags out of a step's metrics.

    Returns:
      Where something was not finite: 'loss', then 'outputs/<name>', then 'gradients/<top-level
      module>'; empty where all was well. Waits for the step.
    """
    flags = {name: metrics.pop(name) for name in list(metrics) if name.split("/")[0] == _PREFIX}
    if not flags[_PREFIX][0]:
        return []
    found = [name.removeprefix(f"{_PREFIX}/") for name, (flag, _) in flags.items() if flag]
    order = ("loss", "outputs", "gradients")
    return sorted(set(found) - {_PREFIX}, key=lambda name: (order.index(name.split("/")[0]), name))


def make_eval_step(
    model: nn.Module, names: Sequence[str], *, mesh: Mesh, shardings: TrainState
) -> Callable[[Any, Any, Batch], dict[str, jax.Array]]:
    """The forward pass of evaluation.

    Args:
      model: called as `model.apply(variables, batch, train=False)`.
      names: outputs, or batch entries, to return; an entry that a batch does not have is left out.
      mesh, shardings: see `make_train_step`.

    Returns:
      Jitted `(params, model_state, batch) -> {name: array}`; every process holds the arrays whole.
    """

    def step(params, model_state, batch):
        with activation_rules(mesh):
            outputs = model.apply({"params": params, **model_state}, batch, train=False)
        known = {**batch, **outputs}
        return {name: known[name] for name in names if name in known}

    return jax.jit(
        step,
        in_shardings=(shardings.params, shardings.model_state, batch_sharding(mesh)),
        out_shardings=replicated(mesh),
    )
