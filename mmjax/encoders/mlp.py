"""A multilayer perceptron on a whole sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.encoders.flatten import side_by_side
from mmjax.layers.mlp import ACTIVATIONS, Activation
from mmjax.types import Features


class MLPEncoder(nn.Module):
    """Vectors [B, L, C] side by side through linear layers, to one token.

    Attributes:
      widths: of the layers; the last is D.
      length: L; shorter sequences are filled with zeros.
      activation: after each layer.
      residual: whether a layer as wide as the one below adds to what it reads.
      dropout: rate after each layer.
      dtype: what it computes in.
    """

    widths: Sequence[int]
    length: int
    activation: Activation = "relu"
    residual: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L C"],
        mask: Bool[Array, "#B #L"] | None = None,
        *,
        train: bool = False,
    ) -> Features:
        """Encodes sequences.

        Args:
          x: vectors.
          mask: which are real; None is all.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` is no batch of vectors, or has more than `length`.
        """
        check_rank("mlp", x, "vectors [B, L, C]")
        mask = full_mask(mask, *x.shape[:2])
        x = side_by_side(x.astype(self.dtype), mask, self.length, "mlp")
        for i, width in enumerate(self.widths):
            y = ACTIVATIONS[self.activation](nn.Dense(width, dtype=self.dtype, name=f"layers_{i}")(x))
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            x = x + y if self.residual and x.shape == y.shape else y
        return make_features(x[:, None], mask.any(axis=1, keepdims=True), x)
