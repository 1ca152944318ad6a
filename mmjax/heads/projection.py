"""Embeddings that are compared across streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.heads.hidden import HiddenLayers
from mmjax.layers.mlp import Activation
from mmjax.types import Features


class Projection(nn.Module):
    """Maps the pooled vector into the space where streams are compared.

    Linear without bias, as in CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3); with hidden
    layers it is the projection head of SimCLR (Chen et al. 2020, arXiv:2002.05709, section 2.1).

    Attributes:
      reads: entry it reads.
      width: D of the embedding; 0 takes the pooled vector as it is, without a linear map (SigLIP).
      hidden: widths of hidden layers.
      activation: after each hidden layer.
      use_bias: whether the last linear map has a bias, as in CLAP (Wu et al. 2022, arXiv:2211.06687).
      normalise: divide by the length, so that a dot product is a cosine.
      dtype: what it computes in; the embedding is float32.
    """

    reads: str = "fused"
    width: int = 512
    hidden: Sequence[int] = ()
    activation: Activation = "gelu_tanh"
    use_bias: bool = False
    normalise: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Float[Array, "B D"]:
        """Embeddings; zeros where the example does not have the entry."""
        entry = features[self.reads]
        hidden = HiddenLayers(self.hidden, 0.0, self.dtype, self.activation, name="hidden")
        x = hidden(entry.pooled, train)
        if self.width:
            x = nn.Dense(self.width, use_bias=self.use_bias, dtype=self.dtype, name="embedding")(x)
        x = x.astype(jnp.float32)
        if self.normalise:
            # The floor keeps the gradient of a vector of zeros finite.
            x = x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), 1e-12))
        return jnp.where(entry.present[:, None], x, 0.0)
