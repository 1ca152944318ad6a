"""One-way cross-attention: one stream looks at the others."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.fusion import common
from mmjax.layers.norms import LayerNorm
from mmjax.layers.transformer import BlockSettings, Transformer
from mmjax.types import Features


class CrossAttention(nn.Module):
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
      width: D inside and of the output.
      depth: number of blocks.
      heads: H, a divisor of the width.
      mlp_width: F; 0 is 4 D.
      dropout: rate on each branch, in training.
      drop_path: probability that the last block's branches are dropped; earlier ones' less.
      remat: recompute the activations of each block in the backward pass.
      scan: one block scanned over stacked parameters, see `mmjax.layers.transformer.transformer_blocks`.
      dtype: what it computes in.
    """

    query: str
    width: int = 512
    depth: int = 6
    heads: int = 8
    mlp_width: int = 0
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: Any = False
    scan: Any = False
    dtype: Any = jnp.float32

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
            context = jnp.concatenate([tokens[name] for name in others], axis=1)
            context_mask = jnp.concatenate([streams[name].mask for name in others], axis=1)
        settings = BlockSettings(
            width=self.width,
            heads=self.heads,
            mlp_width=self.mlp_width,
            cross_attention=bool(others),  # a stream alone has nothing to look at
            dropout=self.dropout,
        )
        transformer = Transformer(
            depth=self.depth,
            settings=settings,
            drop_path=self.drop_path,
            remat=self.remat,
            scan=self.scan,
            dtype=self.dtype,
            name="transformer",
        )
        looking = transformer(looking, mask, train, context, context_mask)
        tokens[self.query] = looking[:, 1:]
        return common.gather(list(tokens.values()), streams, looking[:, 0], own=looking[:, :1])
