"""Low-rank multimodal fusion: tensor fusion without the tensor."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.fusion import common
from mmjax.types import Features


class LowRank(nn.Module):
    """Low-rank multimodal fusion (LMF), Liu et al. 2018, arXiv:1806.00064, section 3.2.

    With x_i the pooled vector of stream i, W_i^(r) a matrix of factors `[width, D_i + 1]`, R the
    `rank`, and * elementwise:

        fused = 1/R sum_r  W_1^(r) [x_1; 1] * W_2^(r) [x_2; 1] * ... * W_M^(r) [x_M; 1]  +  b

    This is W vec([x_1; 1] (x) ... (x) [x_M; 1]) + b of tensor fusion (`tensor`) with a W of rank R;
    its cost is linear in the number of streams. The paper sums over r without 1/R, which the
    factors could absorb; with it the rank does not set the scale of the output.

    In an example that lacks stream i, x_i is zeros, and the column of the appended 1 remains. It
    starts at 1, so a stream that is missing starts as a factor that changes nothing; the rest starts
    as a linear layer does. A row without any stream gives zeros.

    The method has no tokens. Each token gets what the fusion makes of it where it stands for its
    stream's vector and all other streams are missing, with the same parameters.

    Attributes:
      width: D of the fused vectors.
      rank: R.
      dropout: rate on the fused vectors, in training.
      dtype: what it computes in.
    """

    width: int = 512
    rank: int = 4
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ -> tokens `[B, sum of L, width]`, pooled `[B, width]`."""
        streams = common.in_order(features)
        common.check_positive(rank=self.rank)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32).astype(self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        pooled, tokens, missing = {}, {}, {}
        for name, stream in streams.items():
            # Its bias is the column of the appended 1.
            factors = nn.DenseGeneral(
                (self.rank, self.width),
                bias_init=nn.initializers.ones,
                dtype=self.dtype,
                name=f"{name}_factors",
            )
            pooled[name], tokens[name] = factors(stream.pooled), factors(stream.tokens)
            missing[name] = factors(jnp.zeros_like(stream.pooled[:1]))[0]

        def finish(product):  # [..., R, width]
            return drop(product.mean(axis=-2) + bias)

        alone = [
            finish(x * math.prod(missing[other] for other in streams if other != name))
            for name, x in tokens.items()
        ]
        return common.gather(alone, streams, finish(math.prod(pooled.values())))
