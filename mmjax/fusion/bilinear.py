"""Factorised bilinear pooling of the streams' vectors."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.fusion import common
from mmjax.types import Features


class Bilinear(nn.Module):
    """Multi-modal factorised bilinear pooling (MFB), Yu et al. 2017, arXiv:1708.01471, section 3.

    With x_i the pooled vector of stream i, P the streams an example has, U_i a matrix
    `[factors * width, D_i]`, and * elementwise:

        h     = prod_{i in P} U_i x_i                 of factors * width numbers
        z_o   = sum of the o-th `factors` neighbours of h
        z     <- sign(z) |z|^(1/2)                    power normalisation
        fused = z / ||z||                             L2 normalisation

    Each z_o is a bilinear form of rank `factors` between two streams, the paper's case; more streams
    multiply on. A missing stream is left out of the product: an example with one stream has z linear
    in it, and a row without any gives zeros.

    The method has no tokens. Each token gets what the fusion makes of it where it stands for its
    stream's vector and all other streams are missing, with the same parameters.

    Attributes:
      width: D of the fused vectors (the paper's o).
      factors: how many products are summed for each output (the paper's k).
      dropout: rate on h, in training.
      dtype: what it computes in; products and normalisation are float32.
    """

    width: int = 512
    factors: int = 5
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ -> tokens `[B, sum of L, width]`, pooled `[B, width]`."""
        streams = common.in_order(features)
        common.check_positive(factors=self.factors)
        drop = nn.Dropout(self.dropout, deterministic=not train)

        def finish(product):  # [..., width * factors]
            product = drop(product).reshape(*product.shape[:-1], self.width, self.factors)
            return _normalise(product.sum(axis=-1)).astype(self.dtype)

        vectors, tokens = [], []
        for name, stream in streams.items():
            size = self.width * self.factors
            project = nn.Dense(size, use_bias=False, dtype=self.dtype, name=f"{name}_projection")
            vector = project(stream.pooled).astype(jnp.float32)
            vectors.append(jnp.where(stream.present[:, None], vector, 1.0))
            tokens.append(finish(project(stream.tokens).astype(jnp.float32)))
        return common.gather(tokens, streams, finish(math.prod(vectors)))


def _normalise(z):
    """Power and L2 normalisation; the small numbers keep the gradients at zero finite."""
    z = z * jax.lax.rsqrt(jnp.abs(z) + 1e-8)
    return z * jax.lax.rsqrt(jnp.maximum(jnp.square(z).sum(axis=-1, keepdims=True), 1e-12))
