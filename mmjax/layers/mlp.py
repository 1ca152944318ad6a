"""The feed-forward layer of a transformer, and the activations that configs name."""

from __future__ import annotations

import functools
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Activation: TypeAlias = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]


def quick_gelu(x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """x sigmoid(1.702 x), the approximation of GELU that OpenAI's CLIP weights were trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


# 'gelu' is the exact one (Hendrycks and Gimpel 2016, arXiv:1606.08415); they differ by up to 0.02.
ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": quick_gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
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
            nn.Dense,
            use_bias=self.use_bias,
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
        )
        hidden = dense(self.hidden, name="up")(x)
        if self.gated:
            hidden = ACTIVATIONS[self.activation](dense(self.hidden, name="gate")(x)) * hidden
        else:
            hidden = ACTIVATIONS[self.activation](hidden)
        hidden = nn.with_logical_constraint(hidden, ("batch", "length", "mlp"))
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        return dense(x.shape[-1], name="down")(hidden)
