"""Normalisation, with statistics in float32.

The derivatives of the layer normalisations are written out. Left to automatic differentiation, XLA
on CPU fuses the residual gradients of all layers into one expression: 40% more instructions, a fifth
more time, and up to twice the compilation time for twelve layers. As rules for tangents they serve
forward and reverse mode alike.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from mmjax.layers.remat import STATISTICS
from mmjax.parallel.mesh import compiles_for_tpu


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def standardise(x: Float[Array, "*axes D"], eps: float) -> Float[Array, "*axes D"]:
    """Each vector with its mean taken off and divided by its standard deviation."""
    return _standardise(x, eps)[0]


def _standardise(x, eps):
    if compiles_for_tpu():
        # Both sums in one pass, where a pass is what counts. In float32 the difference is exact enough
        # unless a mean is hundreds of times its standard deviation.
        mean, square = x.mean(axis=-1, keepdims=True), jnp.square(x).mean(axis=-1, keepdims=True)
        factor = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0.0) + eps)
        mean, factor = (checkpoint_name(number, STATISTICS) for number in (mean, factor))
        return (x - mean) * factor, factor
    centred = x - x.mean(axis=-1, keepdims=True)
    factor = jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + eps)
    return centred * factor, factor


@standardise.defjvp
def _standardise_jvp(eps, primals, tangents):
    y, factor = _standardise(*primals, eps)
    t = tangents[0] * factor
    return y, t - t.mean(axis=-1, keepdims=True) - y * (y * t).mean(axis=-1, keepdims=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def divide_by_rms(x: Float[Array, "*axes D"], eps: float) -> Float[Array, "*axes D"]:
    """Each vector divided by the root of its mean square."""
    return _divide_by_rms(x, eps)[0]


def _divide_by_rms(x, eps):
    factor = jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + eps)
    factor = checkpoint_name(factor, STATISTICS)
    return x * factor, factor


@divide_by_rms.defjvp
def _divide_by_rms_jvp(eps, primals, tangents):
    y, factor = _divide_by_rms(*primals, eps)
    t = tangents[0] * factor
    return y, t - y * (y * t).mean(axis=-1, keepdims=True)


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
        y = standardise(x.astype(jnp.float32), self.eps) * scale
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
        y = divide_by_rms(x.astype(jnp.float32), self.eps)
        return (y * (1.0 + scale if self.zero_centred else scale)).astype(self.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167), over real positions only.

    In training it uses the statistics of the batch, the whole one however many devices hold it, and
    moves the running ones in the collection 'batch_stats', which it uses otherwise. A batch without
    any real position leaves them as they are.

    Attributes:
      momentum: share of the running statistics that a step keeps.
      eps: added to the variance.
      dtype: of the result.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*axes D"], mask: Bool[Array, "*#axes"] | None = None, train: bool = False
    ) -> Float[Array, "*axes D"]:
        """Normalises each channel; where `mask` is False a position counts in no statistic."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        x = x.astype(jnp.float32)
        if train:
            mean, variance, count = _batch_statistics(x, mask)
            if not self.is_initializing():
                keep = jnp.where(count > 0, self.momentum, 1.0)
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * variance
        else:
            mean, variance = running_mean.value, running_var.value
        y = (x - mean) * (jax.lax.rsqrt(variance + self.eps) * scale) + bias
        return y.astype(self.dtype)


def _batch_statistics(x, mask):
    """Mean and variance of each channel over the real positions, and how many there are."""
    axes = tuple(range(x.ndim - 1))
    if mask is None:
        mask = jnp.ones((1,) * (x.ndim - 1), bool)
    mask = jnp.broadcast_to(mask, x.shape[:-1])[..., None]
    count = mask.sum().astype(jnp.float32)
    mean = x.sum(axes, where=mask) / jnp.maximum(count, 1.0)
    variance = jnp.square(x - mean).sum(axes, where=mask) / jnp.maximum(count, 1.0)
    return mean, variance, count
