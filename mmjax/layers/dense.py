"""Dense layers: products of tokens with matrices, and what is added to them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from mmjax.parallel.mesh import compiles_for_tpu
from mmjax.parallel.ring_attention import sequence_parts

_ROWS = 8  # of a vector register of a TPU; of one row the compiler makes a sum again


class Dense(nn.Module):
    """A linear map of the last axes, `flax.linen.Dense` and `DenseGeneral`, as one product of matrices.

    A TPU lays out [B, L, H * K] without gaps, and [B, L, H, K] with: there, heads are only names for parts
    of vectors. On CPUs it saves copies of kernels.

    Attributes:
      features: size of the last axis of the result, or sizes of the last axes.
      axes: how many of the input's last axes are summed over.
      use_bias: whether a learned vector is added.
      kernel_init: of the kernel as a matrix.
      kept_as: name of the result for policies of `mmjax.layers.remat`.
      dtype: what it computes in.
    """

    features: int | Sequence[int]
    axes: int = 1
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()
    kept_as: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*in"]) -> Float[Array, "*out"]:
        features = (self.features,) if isinstance(self.features, int) else tuple(self.features)
        tokens, summed = x.shape[: -self.axes], x.shape[-self.axes :]
        matrix = (math.prod(summed), math.prod(features))

        def init(key, shape):
            return self.kernel_init(key, matrix, jnp.float32).reshape(shape)

        # Parameters may be NumPy's, as they come from a file.
        kernel = jnp.asarray(self.param("kernel", init, (*summed, *features)), self.dtype)
        y = product(x.astype(self.dtype).reshape(*tokens, matrix[0]), kernel.reshape(matrix))
        if self.use_bias:
            bias = jnp.asarray(self.param("bias", nn.initializers.zeros, features, jnp.float32), self.dtype)
            y = y + spread(bias.reshape(matrix[1]), y.shape)
        # Named as it is laid out: naming [B, L, H, K] costs TPUs a copy.
        y = checkpoint_name(y, self.kept_as) if self.kept_as else y
        return y.reshape(*tokens, *features)


def product(x: Float[Array, "*axes D"], kernel: Float[Array, "D F"]) -> Float[Array, "*axes F"]:
    """x times kernel.

    On CPUs the axes in front are one axis of rows. So is then the axis over which the kernel's gradient
    sums, for which XLA would transpose what it multiplies: 5% of a step of CLIP ViT-B/32. TPUs lay three
    axes out without copies already, and rows cannot be merged where a mesh splits their tokens.
    """
    if jax.default_backend() != "cpu" or compiles_for_tpu() or sequence_parts() > 1:
        return x @ kernel
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def spread(bias: Float[Array, " F"], shape: Sequence[int]) -> Float[Array, "*axes F"]:
    """The vector for every token of an array of `shape`.

    On TPUs its gradient, a sum over tokens, is a product with ones: by the compiler's estimate a twelfth of
    the step of two towers goes into such sums otherwise, seven times what reading their arrays takes. It
    has no forward mode there, as attention on TPUs has none.
    """
    if len(shape) == 1 or not sums_by_products():
        return jnp.broadcast_to(bias, shape)
    return _spread(tuple(shape), bias)


def sums_by_products() -> bool:
    """Whether sums over tokens are products with ones here."""
    return compiles_for_tpu()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spread(shape, bias):
    return jnp.broadcast_to(bias, shape)


def _sum_over_tokens(shape, _, gradient):
    ones = jnp.ones((_ROWS, *shape[:-1]), gradient.dtype)
    total = jnp.tensordot(ones, gradient, len(shape) - 1, preferred_element_type=jnp.float32)
    return (total[0].astype(gradient.dtype),)


_spread.defvjp(lambda shape, bias: (_spread(shape, bias), None), _sum_over_tokens)
