"""Numbers predicted from features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.heads.hidden import HiddenLayers
from mmjax.types import Features


class Regressor(nn.Module):
    """Linear regression on the pooled vector, or an MLP.

    Attributes:
      reads: entry it reads.
      outputs: how many numbers per example.
      hidden: widths of hidden layers.
      dropout: rate on the pooled vector and after each hidden layer, in training.
      dtype: what it computes in; the numbers are float32.
    """

    reads: str = "fused"
    outputs: int = 1
    hidden: Sequence[int] = ()
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: dict[str, Features], *, train: bool = False
    ) -> Float[Array, "B {self.outputs}"]:
        """Numbers on the scale of the target."""
        x = nn.Dropout(self.dropout, deterministic=not train)(features[self.reads].pooled)
        x = HiddenLayers(self.hidden, self.dropout, self.dtype, name="hidden")(x, train)
        return nn.Dense(self.outputs, dtype=self.dtype, name="numbers")(x).astype(jnp.float32)
