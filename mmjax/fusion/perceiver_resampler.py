"""Perceiver resampler: a fixed number of learned queries look at all tokens."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.fusion import common
from mmjax.fusion.attention import AttentionFusion, feed_forward, look_at
from mmjax.layers.attention import MultiHeadAttention, token_mask
from mmjax.layers.norms import LayerNorm
from mmjax.layers.remat import rematerialised
from mmjax.layers.transformer import BlockSettings, Residual
from mmjax.types import Features


class PerceiverResampler(AttentionFusion):
    """The Perceiver resampler of Flamingo, Alayrac et al. 2022, arXiv:2204.14198, section 3.1.1.

    With Q `queries` learned vectors, X_s the tokens of stream s, W_s a projection, e_s a learned
    vector per stream, and LN layer normalisation:

        X     = [W_1 X_1 + e_1; ...; W_M X_M + e_M]
        Q     <- Q + MultiHead(query LN Q, keys and values [LN X; LN Q])
        Q     <- Q + MLP(LN Q)                               both lines `depth` times
        fused = mean of LN Q

    The queries look at the tokens and at each other in one attention. In the paper X are the
    frames of a video with a learned vector per frame; here they are the tokens of all streams, with
    one per stream (positions are the encoders' affair), and the cost is linear in their number.

    The fused tokens are the queries, after the last normalisation, then those of the streams in
    sorted order as they are looked at (X), which have not seen each other. Tokens of a missing stream
    are seen by none. A row without any stream gives zeros.

    Attributes:
      queries: number of learned vectors.
      The others: see `mmjax.fusion.attention`.
    """

    queries: int = 64

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ.

        Returns:
          tokens `[B, queries + sum of L, width]`, pooled `[B, width]`.
        """
        streams = common.in_order(features)
        common.check_positive(depth=self.depth, queries=self.queries)
        tokens = common.TypedTokens(self.width, self.dtype, name="embed")(streams)
        context, mask = look_at(tokens, streams, streams)
        learned = common.LearnedTokens(self.queries, self.width, self.dtype, name="learned_queries")
        queries = learned(len(mask))
        # Argument 4 of __call__ (self is 0) is `train`, a Python bool.
        layer = rematerialised(ResamplerLayer, self.remat, static_argnums=(4,))
        for i in range(self.depth):
            queries = layer(self.settings(), self.dtype, name=f"layers_{i}")(queries, context, mask, train)
        queries = LayerNorm(dtype=self.dtype, name="norm")(queries)
        return common.gather(list(tokens.values()), streams, queries.mean(axis=1), own=queries)


class ResamplerLayer(nn.Module):
    """One layer of `PerceiverResampler`.

    Attributes:
      settings: width, heads, MLP width and dropout.
      dtype: what it computes in.
    """

    settings: BlockSettings
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "B R D"],
        context: Float[Array, "B L D"],
        mask: Bool[Array, "B L"],
        train: bool = False,
    ) -> Float[Array, "B R D"]:
        s = self.settings
        normed = LayerNorm(dtype=self.dtype, name="query_norm")(queries)
        context = LayerNorm(dtype=self.dtype, name="context_norm")(context)
        visible = jnp.concatenate([mask, jnp.ones(queries.shape[:2], bool)], axis=1)
        attention = MultiHeadAttention(s.width, s.heads, dtype=self.dtype, name="attention")
        branch = attention(normed, jnp.concatenate([context, normed], axis=1), token_mask(visible))
        queries = Residual(s, name="attention_residual")(queries, branch, train)
        return feed_forward(s, self.dtype, queries, train)
