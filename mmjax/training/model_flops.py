"""The arithmetic of a model by itself: what its forward pass needs, whatever a compiler makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax

from mmjax import objectives as objectives_lib
from mmjax.training.setup import Setup

BACKWARD = 2  # a backward pass takes two products for each of the forward pass


def model_flops(setup: Setup) -> int:
    """Of one step, over all chips: three times the forward pass (Kaplan et al. 2020, arXiv:2001.08361, 2.1).

    The forward pass of the whole batch and its losses is traced for one device. Matrix products and
    convolutions count two operations for each product, loops as often as they run; nothing else counts.
    Recomputed activations and padding are therefore not in it, and neither is what the optimizer does. The
    backward pass counts in full, also for parameters that are frozen.
    """
    return (1 + BACKWARD) * forward_flops(setup)


def forward_flops(setup: Setup) -> int:
    """Of the whole batch, see `model_flops`."""

    def forward(params, model_state, batch, key):
        for transform in setup.batch_transforms():
            batch = transform(batch, jax.random.wrap_key_data(key))
        outputs, _ = setup.model.apply(
            {"params": params, **model_state},
            batch,
            train=True,
            rngs={"dropout": jax.random.wrap_key_data(key)},
            mutable=list(model_state),
        )
        return objectives_lib.total_loss(setup.objectives, outputs, batch)

    state = setup.abstract
    inputs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
        (state.params, state.model_state, setup.batch, state.key),
    )
    return count(jax.make_jaxpr(forward)(*inputs).jaxpr)


def count(jaxpr: Any) -> int:
    """Operations of the products and convolutions in a jaxpr; of a `while` loop those of one round."""
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(left[i] for i in contracted)
    if name == "dot_product_attention_fwd_wrapper":  # cuDNN's, which is one operation
        query, key = (equation.invars[i].aval.shape for i in (0, 1))  # [B, Lq, H, K], [B, Lk, H, K]
        return 4 * math.prod(query) * key[1]
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        spatial = params["dimension_numbers"].rhs_spec  # (out, in, places...)
        each = math.prod(kernel[i] for i in spatial[1:])
        return 2 * equation.outvars[0].aval.size * each
    inner = [count(jaxpr) for jaxpr in _jaxprs(params.values())]
    if name == "cond":
        return max(inner, default=0)
    return params["length"] * sum(inner) if name == "scan" else sum(inner)


def _jaxprs(values) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _jaxprs(value)
        elif hasattr(value, "jaxpr"):  # closed
            yield value.jaxpr
        elif hasattr(value, "eqns"):
            yield value
