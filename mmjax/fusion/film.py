"""Feature-wise linear modulation: one stream scales and shifts the tokens of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.fusion import common
from mmjax.layers.norms import standardise
from mmjax.layers.pooling import mean_pool
from mmjax.types import Features


class FiLM(nn.Module):
    """FiLM, Perez et al. 2018, arXiv:1709.07871, section 2.1, in the residual block of section 2.2.

    With X_s the tokens of stream s, x_c the pooled vector of a conditioning stream c, C_s the
    conditioning streams other than s that the example has, and N layer normalisation without
    parameters, each block computes for every stream

        gamma = 1 + sum_{c in C_s} (W_cs x_c + b_cs)        one number per channel
        beta  =     sum_{c in C_s} (V_cs x_c + d_cs)
        H_s   = relu(A_s X_s + a_s)
        X_s   <- H_s + relu(gamma * N(B_s H_s) + beta)

    The paper has one conditioning stream (the question), one modulated stream (a grid of image
    features), a 3x3 convolution for B, batch normalisation for N, and 1 + for the same reason: a
    gamma near 0 would silence the channel. Here `by` names the conditioning streams; where it names
    none, each stream conditions all others. Several conditions add up, as one linear map of their
    concatenation would. Streams that nothing conditions (a conditioning one that is alone, or whose
    conditions are missing) go through with gamma = 1 and beta = 0, so that every stream reaches the
    output and an example may lack any of them.

    The fused tokens are those of all streams; the fused vector is the mean over the streams an
    example has of the mean of each one's tokens (the paper takes the maximum of its one stream).

    Attributes:
      width: D inside and of the output.
      depth: number of blocks.
      by: the conditioning streams; none named is all.
      dropout: rate on what each block adds, in training.
      dtype: what it computes in.
    """

    width: int = 512
    depth: int = 2
    by: Sequence[str] = ()
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ -> tokens `[B, sum of L, width]`, pooled `[B, width]`."""
        streams = common.in_order(features)
        common.check_positive(depth=self.depth)
        for name in self.by:
            common.check_stream("by", name, streams)
        tokens = {
            name: nn.Dense(self.width, dtype=self.dtype, name=f"{name}_projection")(stream.tokens)
            for name, stream in streams.items()
        }
        conditions = {name: streams[name] for name in streams if not self.by or name in self.by}
        vectors = {name: (stream.pooled, stream.present) for name, stream in conditions.items()}
        for i in range(self.depth):
            block = FiLMBlock(self.width, self.dropout, self.dtype, name=f"blocks_{i}")
            tokens = block(tokens, vectors, train)
        means = jnp.stack([mean_pool(x, streams[name].mask) for name, x in tokens.items()], axis=1)
        pooled = mean_pool(means, common.present(streams))
        return common.gather(list(tokens.values()), streams, pooled)


class FiLMBlock(nn.Module):
    """One block of `FiLM`, with parameters of its own for every stream and every pair.

    Attributes:
      width: D.
      dropout: rate on what it adds.
      dtype: what it computes in.
    """

    width: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: dict[str, Float[Array, "B _ D"]],
        conditions: dict[str, tuple[Float[Array, "B _"], Bool[Array, " B"]]],
        train: bool = False,
    ) -> dict[str, Float[Array, "B _ D"]]:
        """`conditions`: conditioning stream -> its pooled vector, and which examples have it."""
        result = {}
        for name, x in tokens.items():
            hidden = nn.relu(nn.Dense(self.width, dtype=self.dtype, name=f"{name}_in")(x))
            inner = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name=f"{name}_inner")(hidden)
            inner = standardise(inner.astype(jnp.float32), 1e-6).astype(self.dtype)
            gamma, beta = jnp.ones((), self.dtype), jnp.zeros((), self.dtype)
            for other, (vector, present) in conditions.items():
                if other == name:
                    continue
                generate = nn.Dense(2 * self.width, dtype=self.dtype, name=f"{other}_to_{name}")
                made = jnp.where(present[:, None], generate(vector), 0)[:, None]
                gamma, beta = gamma + made[..., : self.width], beta + made[..., self.width :]
            branch = nn.relu(gamma * inner + beta)
            result[name] = hidden + nn.Dropout(self.dropout, deterministic=not train)(branch)
        return result
