"""One-way cross-attention: one stream looks at the others."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from mmjax.fusion import common
from mmjax.fusion.attention import TransformerFusion, look_at
from mmjax.layers.norms import LayerNorm
from mmjax.types import Features


class CrossAttention(TransformerFusion, kw_only=True):
    """The multimodal encoder of ALBEF, Li et al. 2021, arXiv:2107.07651, section 3.1.

    With X_q the tokens of the query stream, X_s those of the others, W a projection and e a learned
    vector per stream:

        Q_0   = [class; W_q X_q + e_q]
        C     = LayerNorm([W_s X_s + e_s for every other stream s])
        Q_l   = block_l(Q_{l-1}, C):   self-attention among Q, cross-attention from Q to C, MLP
        fused = LayerNorm(Q_depth) at the class token

    In the paper the text looks at the image; here the query stream looks at the tokens of all other
    streams at once. Blocks normalise first (Xiong et al. 2020, arXiv:2002.04745), not after.
    Streams that look at each other, as in LXMERT (Tan and Bansal 2019, arXiv:1908.07490, section
    2.2), are `co_attention` (`mmjax.fusion.co_attention.CoAttention`).

    The fused tokens are the class token, then those of the streams in sorted order: the query
    stream's after the last block, the others' as they are looked at (C). Where the query stream is
    missing the class token alone looks at the others; where all others are missing, cross-attention
    adds nothing but its bias. A row without any stream gives zeros.

    Attributes:
      query: the stream that looks.
      The others: see `mmjax.fusion.attention`.
    """

    query: str

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ.

        Returns:
          tokens `[B, 1 + sum of L, width]`, pooled `[B, width]`.
        """
        streams = common.in_order(features)
        common.check_positive(depth=self.depth)
        common.check_stream("query", self.query, streams)
        tokens = common.TypedTokens(self.width, self.dtype, name="embed")(streams)
        mask = jnp.pad(streams[self.query].mask, ((0, 0), (1, 0)), constant_values=True)
        own = common.LearnedTokens(1, self.width, self.dtype, name="class_token")(len(mask))
        looking = jnp.concatenate([own, tokens[self.query]], axis=1)

        others = [name for name in streams if name != self.query]
        context = context_mask = None
        if others:
            norm = LayerNorm(dtype=self.dtype, name="context_norm")
            tokens |= {name: norm(tokens[name]) for name in others}
            context, context_mask = look_at(tokens, streams, others)
        transformer = self.transformer(cross_attention=bool(others))  # a stream alone has nothing to look at
        looking = transformer(looking, mask, train, context, context_mask)
        tokens[self.query] = looking[:, 1:]
        return common.gather(list(tokens.values()), streams, looking[:, 0], own=looking[:, :1])
