"""Concatenation of the streams' vectors (early fusion of features)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.fusion import common
from mmjax.types import Features


class Concat(nn.Module):
    """Concatenates the pooled vectors and projects them, as in Ngiam et al. 2011 (ICML), section 3.

    With x_i the pooled vector of stream i, in the sorted order of the streams' names:

        x     = [x_1; ...; x_M]
        fused = W x + b                           without hidden layers
        fused = W gelu(... gelu(W_1 x + b_1)) + b  with them

    In an example that lacks stream i a learned vector, `<stream>_missing`, stands for x_i, so that
    absence is something the model knows and never a zero that counts as content. A row without any
    stream gives zeros.

    The matrix that meets the concatenation is kept as one block per stream, since
    W [x_1; ...; x_M] = W_1 x_1 + ... + W_M x_M. Stream i's tokens go through its block and then
    the same layers, so they need no parameters of their own.

    Attributes:
      width: D of the fused vectors.
      hidden: widths of the hidden layers between the concatenation and the output.
      dropout: rate after each hidden layer, in training.
      dtype: what it computes in.
    """

    width: int = 512
    hidden: Sequence[int] = ()
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ -> tokens `[B, sum of L, width]`, pooled `[B, width]`."""
        streams = common.in_order(features)
        widths = [*self.hidden, self.width]
        total = sum(f.pooled.shape[-1] for f in streams.values())
        bias = self.param("bias", nn.initializers.zeros, (widths[0],), jnp.float32).astype(self.dtype)
        later = [nn.Dense(width, dtype=self.dtype, name=f"layers_{i}") for i, width in enumerate(widths[1:])]
        drop = nn.Dropout(self.dropout, deterministic=not train)

        def finish(x):
            for layer in later:
                x = layer(drop(nn.gelu(x)))
            return x

        joined, tokens = bias, []
        for name, stream in streams.items():
            own = stream.pooled.shape[-1]
            # The variance a kernel over the whole concatenation would start with.
            init = nn.initializers.variance_scaling(own / total, "fan_in", "truncated_normal")
            block = nn.Dense(widths[0], False, self.dtype, kernel_init=init, name=f"{name}_projection")
            missing = self.param(f"{name}_missing", nn.initializers.normal(0.02), (own,), jnp.float32)
            joined = joined + block(jnp.where(stream.present[:, None], stream.pooled, missing))
            tokens.append(finish(block(stream.tokens) + bias))
        return common.gather(tokens, streams, finish(joined))
