"""Hidden layers between an entry and what a head makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class HiddenLayers(nn.Module):
    """Dense, GELU, dropout, once per width; the identity where there is none.

    Attributes:
      widths: of the layers.
      dropout: rate, in training.
      dtype: what it computes in.
    """

    widths: Sequence[int] = ()
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*axes D"], train: bool = False) -> Float[Array, "*axes F"]:
        for i, width in enumerate(self.widths):
            x = nn.gelu(nn.Dense(width, dtype=self.dtype, name=f"layers_{i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x
