"""Products of tokens with matrices."""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import Array, Float

from mmjax.parallel.mesh import compiles_for_tpu
from mmjax.parallel.ring_attention import sequence_parts


def product_of_rows(
    x: Float[Array, "*axes D"],
    kernel: Float[Array, "D F"],
    dimension_numbers: Any = None,
    precision: jax.lax.PrecisionLike = None,
    preferred_element_type: Any = None,
) -> Float[Array, "*axes F"]:
    """x times kernel; as `dot_general` of Flax's layers where these sum over the last axis.

    On CPUs the axes in front are one axis of rows. So is then the axis over which the kernel's gradient
    sums, for which XLA would transpose what it multiplies: 5% of a step of CLIP ViT-B/32. TPUs lay three
    axes out without copies already, and rows cannot be merged where a mesh splits their tokens.

    Args:
      x: of any number of axes.
      kernel: a matrix.
      dimension_numbers: only those of this product; None stands for them.
      precision, preferred_element_type: see `jax.lax.dot_general`.
    """
    dims = (((x.ndim - 1,), (0,)), ((), ()))
    if dimension_numbers not in (None, dims):
        raise ValueError(f"product_of_rows got the dimension numbers {dimension_numbers}, expected {dims}")
    shape = (*x.shape[:-1], kernel.shape[-1])
    if jax.default_backend() == "cpu" and not compiles_for_tpu() and sequence_parts() == 1:
        x, dims = x.reshape(-1, x.shape[-1]), (((1,), (0,)), ((), ()))
    return jax.lax.dot_general(
        x, kernel, dims, precision=precision, preferred_element_type=preferred_element_type
    ).reshape(shape)
