"""Merged attention (single stream): the tokens of all streams in one transformer."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.fusion import common
from mmjax.layers.transformer import BlockSettings, Transformer
from mmjax.types import Features


class MergedAttention(nn.Module):
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

    Attributes:
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
        embedded = common.TypedTokens(self.width, self.dtype, name="embed")(streams)
        masks = [stream.mask for stream in streams.values()]
        own = common.LearnedTokens(1, self.width, self.dtype, name="class_token")(len(masks[0]))
        tokens = jnp.concatenate([own, *embedded.values()], axis=1)
        mask = jnp.concatenate([jnp.ones_like(masks[0][:, :1]), *masks], axis=1)
        settings = BlockSettings(
            width=self.width, heads=self.heads, mlp_width=self.mlp_width, dropout=self.dropout
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
        tokens = transformer(tokens, mask, train)
        return common.gather([tokens[:, 1:]], streams, tokens[:, 0], own=tokens[:, :1])
