"""Hidden layers between an entry and what a head makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.layers.mlp import ACTIVATIONS, Activation


class HiddenLayers(nn.Module):
    """Dense, activation, dropout, once per width; the identity where there is none.

    Attributes:
      widths: of the layers.
      dropout: rate, in training.
      dtype: what it computes in.
      activation: after each.
    """

    widths: Sequence[int] = ()
    dropout: float = 0.0
    dtype: Any = jnp.float32
    activation: Activation = "gelu_tanh"

    @nn.compact
    def __call__(self, x: Float[Array, "*axes D"], train: bool = False) -> Float[Array, "*axes F"]:
        for i, width in enumerate(self.widths):
            x = nn.Dense(width, dtype=self.dtype, name=f"layers_{i}")(x)
            x = ACTIVATIONS[self.activation](x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x
