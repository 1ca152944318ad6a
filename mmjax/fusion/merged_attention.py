"""Merged attention (single stream): the tokens of all streams in one transformer."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from mmjax.fusion import common
from mmjax.fusion.attention import TransformerFusion, look_at
from mmjax.types import Features


class MergedAttention(TransformerFusion):
    """Single-stream transformer: ViLT, Kim et al. 2021, arXiv:2102.03334, section 3.1; FLAVA, Singh
    et al. 2022, arXiv:2112.04482, section 3.1 (multimodal encoder); for any number of streams.

    With X_s the tokens of stream s, W_s a projection, and e_s a learned vector per stream:

        Z_0   = [class; W_1 X_1 + e_1; ...; W_M X_M + e_M]
        Z_l   = TransformerBlock_l(Z_{l-1})            every token sees all tokens of all streams
        fused = LayerNorm(Z_depth) at the class token

    Over encoders with blocks of their own this is FLAVA's multimodal encoder. Over encoders of depth
    0, which only embed patches and words, it is ViLT. Blocks normalise first, as in both papers.

    The fused tokens are the class token, then those of the streams in sorted order. Tokens of a
    missing stream are seen by none; the class token is always there. A row without any stream gives
    zeros.

    Attributes: see `mmjax.fusion.attention`.
    """

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ.

        Returns:
          tokens `[B, 1 + sum of L, width]`, pooled `[B, width]`.
        """
        streams = common.in_order(features)
        common.check_positive(depth=self.depth)
        embedded = common.TypedTokens(self.width, self.dtype, name="embed")(streams)
        tokens, mask = look_at(embedded, streams, streams)
        own = common.LearnedTokens(1, self.width, self.dtype, name="class_token")(len(mask))
        mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        tokens = self.transformer()(jnp.concatenate([own, tokens], axis=1), mask, train)
        return common.gather([tokens[:, 1:]], streams, tokens[:, 0], own=tokens[:, :1])
