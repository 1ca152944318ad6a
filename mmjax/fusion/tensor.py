"""Tensor fusion: the outer product of the streams' vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.errors import ConfigError
from mmjax.fusion import common
from mmjax.types import Features


class Tensor(nn.Module):
    """Tensor Fusion Network (TFN), Zadeh et al. 2017, arXiv:1707.07250, sections 4.2 and 4.3.

    With x_i the pooled vector of stream i, in the sorted order of the streams' names:

        z_i   = W_i x_i + b_i                               of `stream_width` d
        Z     = [z_1; 1] (x) [z_2; 1] (x) ... (x) [z_M; 1]  outer product, (d + 1)^M numbers
        fused = W vec(Z) + b                                without hidden layers
        fused = W gelu(... gelu(W' vec(Z) + b')) + b        with them

    The appended ones keep every stream alone, and every smaller combination, among the numbers. The
    paper has three streams; the encoders are its embedding subnetworks, so only a linear map stands
    here before the product.

    In an example that lacks stream i, z_i is zeros: of Z only the combinations without i are left.
    A row without any stream gives zeros.

    The method has no tokens. Each token gets what the fusion makes of it where it stands for its
    stream's vector and all other streams are missing, with the same parameters.

    Attributes:
      width: D of the fused vectors.
      stream_width: d of each stream in the outer product.
      hidden: widths of the hidden layers between the outer product and the output.
      max_size: most numbers that Z may have; it grows exponentially with the streams.
      dropout: rate after each hidden layer, in training.
      dtype: what it computes in.
    """

    width: int = 512
    stream_width: int = 32
    hidden: Sequence[int] = ()
    max_size: int = 100_000
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ -> tokens `[B, sum of L, width]`, pooled `[B, width]`."""
        streams = common.in_order(features)
        common.check_positive(stream_width=self.stream_width)
        shape = (self.stream_width + 1,) * len(streams)
        size = math.prod(shape)
        if size > self.max_size:
            raise ConfigError(
                f"model.fusion: the outer product of {len(streams)} streams has {self.stream_width + 1}"
                f"^{len(streams)} = {size:,} numbers per example, over max_size {self.max_size:,}; lower "
                "stream_width, raise max_size, or use 'low_rank', which never builds it"
            )
        widths = [*self.hidden, self.width]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (size, widths[0]), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (widths[0],), jnp.float32).astype(self.dtype)
        kernel = kernel.astype(self.dtype)
        later = [nn.Dense(width, dtype=self.dtype, name=f"layers_{i}") for i, width in enumerate(widths[1:])]
        drop = nn.Dropout(self.dropout, deterministic=not train)

        def finish(x):
            for layer in later:
                x = layer(drop(nn.gelu(x)))
            return x

        places = np.arange(size).reshape(shape)  # where each combination stands in vec(Z)
        nothing = kernel[size - 1] + bias  # the product of all ones: what is there without any stream
        product, tokens = None, []
        for i, (name, stream) in enumerate(streams.items()):
            project = nn.Dense(self.stream_width, dtype=self.dtype, name=f"{name}_projection")
            vector = jnp.where(stream.present[:, None], project(stream.pooled), 0)
            vector = jnp.concatenate([vector, jnp.ones_like(vector[:, :1])], axis=1)
            product = vector if product is None else _outer(product, vector)
            alone = places[(-1,) * i + (slice(-1),) + (-1,) * (len(streams) - i - 1)]
            tokens.append(finish(project(stream.tokens) @ kernel[alone] + nothing))
        return common.gather(tokens, streams, finish(product @ kernel + bias))


def _outer(a, b):
    """[B, m], [B, n] -> [B, m n], the last axis of `b` running fastest."""
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)
