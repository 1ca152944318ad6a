"""Loss and gradient of a whole batch, in one piece or by microbatches.

Where every objective is a mean over examples that do not see each other, the gradients of its
microbatches are added up, each divided by what counts in the whole batch.

Otherwise gradients are cached at the model's outputs (GradCache, Gao et al. 2021, arXiv:2101.06983,
section 3.2), so that objectives see the whole batch, with all its negatives, while the activations
of one microbatch at a time are kept:

1. forward every microbatch, keeping only the outputs that objectives read;
2. the loss of the joined outputs, and its gradient with respect to them;
3. forward every microbatch again, with the same random keys, and pull its part of that gradient
   back to the parameters.

Either way the result is that of the whole batch at once, up to rounding, for a model whose examples
do not interact. Batch statistics (BatchNorm) are those of each microbatch, updated one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from mmjax import objectives as objectives_lib
from mmjax.errors import ConfigError
from mmjax.parallel.mesh import BATCH_AXES
from mmjax.training.trees import overlay, select
from mmjax.types import Batch, Outputs


class LossAndGradients(NamedTuple):
    """What one batch gives.

    Attributes:
      loss: float32 [].
      metrics: name -> (sum, count).
      outputs: the outputs that objectives read.
      gradients: of the loss, a tree like the parameters.
      model_state: the model's other collections after this batch.
    """

    loss: jax.Array
    metrics: objectives_lib.Metrics
    outputs: Outputs
    gradients: Any
    model_state: Any


# (params, model_state, batch, key) -> LossAndGradients
GradientFunction = Callable[[Any, Any, Batch, jax.Array], LossAndGradients]


def make_gradient_function(
    model: nn.Module,
    objectives: Mapping[str, objectives_lib.Objective],
    param_shardings: Any,
    *,
    accumulate_steps: int = 1,
    trainable: Any = None,
) -> GradientFunction:
    """See the module docstring.

    Args:
      model: called as `model.apply(variables, batch, train=True)`, returns `Outputs`.
      objectives: by name.
      param_shardings: where gradients live, a tree like the parameters.
      accumulate_steps: microbatches; 1 takes the batch in one piece.
      trainable: tree of bools like the parameters; the gradient of the others is zero, and nothing
        is computed or kept for it. None trains all.
    """
    reads = sorted({name for objective in objectives.values() for name in objective.reads()})
    mesh = jax.tree.leaves(param_shardings)[0].mesh
    microbatch_sharding = NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))
    moving_shardings = select(param_shardings, trainable)

    # The gradient is taken with respect to `moving`, the part of the parameters that is trained.
    def forward(moving, params, model_state, batch, key):
        outputs, new_state = model.apply(
            {"params": overlay(params, moving), **model_state},
            batch,
            train=True,
            rngs={"dropout": key},
            mutable=list(model_state),
        )
        objectives_lib.check(objectives, outputs, batch)
        return {name: outputs[name] for name in reads}, new_state

    def whole(moving, params, model_state, batch, key):
        def compute(moving):
            outputs, new_state = forward(moving, params, model_state, batch, key)
            loss, metrics = objectives_lib.total_loss(objectives, outputs, batch)
            return loss, (metrics, outputs, new_state)

        (loss, (metrics, outputs, new_state)), gradients = jax.value_and_grad(compute, has_aux=True)(moving)
        return LossAndGradients(loss, metrics, outputs, gradients, new_state)

    def cached(moving, params, model_state, batch, key):
        microbatches = {name: split(x, name) for name, x in batch.items()}
        keys = jax.random.split(key, accumulate_steps)

        def first(state, item):
            outputs, state = forward(moving, params, state, *item)
            return state, outputs

        new_state, pieces = jax.lax.scan(first, model_state, (microbatches, keys))
        outputs = {name: join(x, name) for name, x in pieces.items()}
        differentiable = {name: x for name, x in outputs.items() if jnp.issubdtype(x.dtype, jnp.inexact)}

        def compute(differentiable):
            return objectives_lib.total_loss(objectives, outputs | differentiable, batch)

        (loss, metrics), cotangents = jax.value_and_grad(compute, has_aux=True)(differentiable)
        cotangents = {name: split_cotangent(x) for name, x in cotangents.items()}

        def second(carry, item):
            gradients, state = carry
            *item, cotangent = item

            def again(moving):
                outputs, new_state = forward(moving, params, state, *item)
                return {name: outputs[name] for name in cotangent}, new_state

            _, pull_back, state = jax.vjp(again, moving, has_aux=True)
            return (jax.tree.map(jnp.add, gradients, pull_back(cotangent)[0]), state), None

        carry = (no_gradient(moving), model_state)
        (gradients, _), _ = jax.lax.scan(second, carry, (microbatches, keys, cotangents))
        return LossAndGradients(loss, metrics, outputs, gradients, new_state)

    def added(moving, params, model_state, batch, key):
        microbatches = {name: split(x, name) for name, x in batch.items()}
        keys = jax.random.split(key, accumulate_steps)
        # What counts does not depend on what the outputs hold; the compiler drops the losses of zeros.
        shapes, _ = jax.eval_shape(forward, moving, params, model_state, batch, key)
        nothing = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}
        numbers = {name: o.terms(nothing, batch)[1] for name, o in objectives.items()}

        def one(carry, item):
            gradients, state = carry
            part, key = item

            def compute(moving):
                outputs, new_state = forward(moving, params, state, part, key)
                losses, metrics = objectives_lib.losses_of_part(objectives, outputs, part, numbers)
                total, _ = objectives_lib.combine(objectives, losses, metrics)
                return total, (losses, metrics, outputs, new_state)

            own, (*found, state) = jax.grad(compute, has_aux=True)(moving)
            return (jax.tree.map(jnp.add, gradients, own), state), found

        carry = (no_gradient(moving), model_state)
        (gradients, new_state), found = jax.lax.scan(one, carry, (microbatches, keys))
        *sums, pieces = found
        losses, metrics = jax.tree.map(lambda x: x.sum(0), sums)
        loss, metrics = objectives_lib.combine(objectives, losses, metrics)
        outputs = {name: join(x, name) for name, x in pieces.items()}
        return LossAndGradients(loss, metrics, outputs, gradients, new_state)

    # Microbatch i takes rows i, i + n, i + 2n, ...: every device then cuts its own rows, and no row
    # moves between devices.
    def split(x, name):
        if x.shape[0] % accumulate_steps:
            raise ConfigError(
                f"optimizer.accumulate_steps: got {accumulate_steps}, expected a divisor of the {x.shape[0]} "
                f"rows of '{name}'"
            )
        pieces = x.reshape(x.shape[0] // accumulate_steps, accumulate_steps, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(pieces, microbatch_sharding)

    def no_gradient(moving):
        return jax.lax.with_sharding_constraint(jax.tree.map(jnp.zeros_like, moving), moving_shardings)

    def join(pieces, name):
        if pieces.ndim == 1:  # a scalar, such as a learned temperature: the same in every microbatch
            return pieces.mean(0)
        return pieces.swapaxes(0, 1).reshape(-1, *pieces.shape[2:])

    def split_cotangent(x):
        if x.ndim == 0:  # of the mean
            return jnp.full(accumulate_steps, x / accumulate_steps)
        return split(x, "outputs")

    if accumulate_steps == 1:
        compute_all = whole
    elif all(isinstance(o, objectives_lib.MeanObjective) for o in objectives.values()):
        compute_all = added
    else:
        compute_all = cached

    def function(params, model_state, batch, key):
        result = compute_all(select(params, trainable), params, model_state, batch, key)
        zeros = jax.tree.map(jnp.zeros_like, params)
        return result._replace(gradients=overlay(zeros, result.gradients))

    return function
