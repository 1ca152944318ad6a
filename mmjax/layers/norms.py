"""Normalisation of each token's vector, with statistics in float32."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016, arXiv:1607.06450).

    Attributes:
      eps: added to the variance.
      use_bias: whether a learned vector is added.
      dtype: of the result.
    """

    eps: float = 1e-6
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*axes D"]) -> Float[Array, "*axes D"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + self.eps) * scale
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return y.astype(self.dtype)


class RMSNorm(nn.Module):
    """Division by the root mean square of the last axis (Zhang and Sennrich 2019, arXiv:1910.07467).

    Attributes:
      eps: added to the mean square.
      zero_centred: the factor is 1 + scale, as in Gemma, instead of scale.
      dtype: of the result.
    """

    eps: float = 1e-6
    zero_centred: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*axes D"]) -> Float[Array, "*axes D"]:
        init = nn.initializers.zeros if self.zero_centred else nn.initializers.ones
        scale = self.param("scale", init, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        y = x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + self.eps)
        return (y * (1.0 + scale if self.zero_centred else scale)).astype(self.dtype)
