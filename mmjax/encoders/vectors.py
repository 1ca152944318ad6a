"""Vectors as they are."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.layers.pooling import mean_pool
from mmjax.types import Features


class Vectors(nn.Module):
    """Vectors [B, L, C] are the tokens, and their mean the pooled vector; there are no parameters.

    For features that are already known, such as the state description of a scene or a question in bits,
    and a fusion that learns what to make of them. `flatten` joins them instead.

    Attributes:
      dtype: what they are taken in.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L C"],
        mask: Bool[Array, "#B #L"] | None = None,
        *,
        train: bool = False,
    ) -> Features:
        """Encodes vectors.

        Args:
          x: vectors.
          mask: which are real; None is all.
          train: makes no difference.

        Raises:
          ConfigError: where `x` is no batch of vectors.
        """
        check_rank("vectors", x, "vectors [B, L, C]")
        mask = full_mask(mask, *x.shape[:2])
        tokens = jnp.where(mask[..., None], x, 0).astype(self.dtype)
        return make_features(tokens, mask, mean_pool(tokens, mask))
