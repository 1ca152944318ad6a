"""The feed-forward layer of a transformer, and the activations that configs name."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.layers.dense import Dense
from mmjax.layers.remat import PROJECTED

Activation: TypeAlias = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]


def _gelu(x):
    cdf = 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))
    density = jnp.exp(-0.5 * jnp.square(x)) * (1 / math.sqrt(2 * math.pi))
    return x * cdf, cdf + x * density


def _gelu_tanh(x):
    factor, cubic = math.sqrt(2 / math.pi), 0.044715
    tanh = jnp.tanh(factor * (x + cubic * x**3))
    slope = 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * factor * (1 + 3 * cubic * x**2)
    return 0.5 * x * (1 + tanh), slope


def _swish(x, beta):
    gate = jax.nn.sigmoid(beta * x)
    return x * gate, gate + beta * x * gate * (1 - gate)


def _keeping_slope(value_and_slope: Callable) -> Callable[[jax.Array], jax.Array]:
    """An elementwise function, in float32 inside, that keeps its slope for the backward pass.

    Automatic differentiation would keep several inner values: 18% more memory for the step of a
    transformer on CPU.
    """

    @jax.custom_jvp
    def function(x):
        return value_and_slope(x.astype(jnp.float32))[0].astype(x.dtype)

    @function.defjvp
    def jvp(primals, tangents):
        (x,), (tangent,) = primals, tangents
        value, slope = value_and_slope(x.astype(jnp.float32))
        return value.astype(x.dtype), slope.astype(x.dtype) * tangent

    return function


# 'gelu' is the exact one (Hendrycks and Gimpel 2016, arXiv:1606.08415), 'gelu_tanh' its usual
# approximation, 'quick_gelu' that of OpenAI's CLIP weights. They differ by up to 0.02.
ACTIVATIONS = {
    "gelu": _keeping_slope(_gelu),
    "gelu_tanh": _keeping_slope(_gelu_tanh),
    "quick_gelu": _keeping_slope(functools.partial(_swish, beta=1.702)),
    "relu": jax.nn.relu,
    "silu": _keeping_slope(functools.partial(_swish, beta=1.0)),
}


class MLP(nn.Module):
    """D -> F -> D for each token.

    Attributes:
      hidden: F.
      activation: applied at width F.
      gated: multiplies the activation of one projection with another (GLU variants, Shazeer 2020,
        arXiv:2002.05202).
      use_bias: whether the projections have biases.
      dropout: rate at width F.
      dtype: what it computes in.
    """

    hidden: int
    activation: Activation = "gelu"
    gated: bool = False
    use_bias: bool = True
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], train: bool = False) -> Float[Array, "B L D"]:
        dense = functools.partial(
            Dense,
            use_bias=self.use_bias,
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
        )
        hidden = dense(self.hidden, kept_as=PROJECTED, name="up")(x)
        if self.gated:
            gate = dense(self.hidden, kept_as=PROJECTED, name="gate")(x)
            hidden = ACTIVATIONS[self.activation](gate) * hidden
        else:
            hidden = ACTIVATIONS[self.activation](hidden)
        hidden = nn.with_logical_constraint(hidden, ("batch", "length", "mlp"))
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        return dense(x.shape[-1], name="down")(hidden)
