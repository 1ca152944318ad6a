"""From the vectors of all tokens to one vector; each gives zeros where no token is real."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.layers.attention import MultiHeadAttention, token_mask
from mmjax.layers.mlp import MLP, Activation
from mmjax.layers.norms import LayerNorm


def mean_pool(tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """The mean of the real tokens."""
    total = jnp.sum(tokens, axis=1, where=mask[..., None])
    count = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    return total / count.astype(tokens.dtype)


def max_pool(tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """The largest value of each channel over the real tokens."""
    lowest = jnp.finfo(tokens.dtype).min
    largest = jnp.where(mask[..., None], tokens, lowest).max(axis=1)
    return zero_absent(largest, mask)


def first_pool(tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """The first real token."""
    return zero_absent(_take(tokens, jnp.argmax(mask, axis=1)), mask)


def last_pool(tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """The last real token."""
    index = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return zero_absent(_take(tokens, index), mask)


def zero_absent(pooled: Float[Array, "B D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """Zeros, without gradient, in rows that have no real token."""
    return jnp.where(mask.any(axis=1, keepdims=True), pooled, jnp.zeros((), pooled.dtype))


def _take(tokens, index):
    return jnp.take_along_axis(tokens, index[:, None, None], axis=1)[:, 0]


class AttentionPool(nn.Module):
    """Multihead attention pooling (MAP; Zhai et al. 2021, arXiv:2106.04560, section 3.2).

    A learned probe attends to the tokens; a residual MLP follows.

    Attributes:
      heads: H.
      mlp_width: F; 0 is 4 D.
      activation: of the MLP.
      eps: of the normalisation before the MLP.
      dtype: what it computes in.
    """

    heads: int
    mlp_width: int = 0
    activation: Activation = "gelu"
    eps: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"] | None = None, train: bool = False
    ) -> Float[Array, "B D"]:
        batch, _, width = tokens.shape
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, width), jnp.float32)
        query = jnp.broadcast_to(probe.astype(self.dtype), (batch, 1, width))
        attention = MultiHeadAttention(width, self.heads, dtype=self.dtype, name="attention")
        pooled = attention(query, tokens, None if mask is None else token_mask(mask))
        mlp = MLP(self.mlp_width or 4 * width, self.activation, dtype=self.dtype, name="mlp")
        pooled = pooled + mlp(LayerNorm(eps=self.eps, dtype=self.dtype, name="norm")(pooled), train)
        return pooled[:, 0] if mask is None else zero_absent(pooled[:, 0], mask)


class Pooler(nn.Module):
    """A linear layer of the same width on the pooled vector (Devlin et al. 2018, arXiv:1810.04805).

    Attributes:
      activation: 'tanh' as in BERT, or 'none'.
      dtype: what it computes in.
    """

    activation: Literal["tanh", "none"] = "tanh"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pooled: Float[Array, "B D"]) -> Float[Array, "B D"]:
        pooled = nn.Dense(pooled.shape[-1], dtype=self.dtype, name="dense")(pooled)
        return jnp.tanh(pooled) if self.activation == "tanh" else pooled


# The ways to pool that need nothing but the tokens and their mask.
POOLINGS = {"mean": mean_pool, "max": max_pool, "cls": first_pool, "last": last_pool}
