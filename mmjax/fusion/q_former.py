"""Q-Former: learned queries that look at some streams and talk with the words of another."""

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


class QFormer(AttentionFusion):
    """The querying transformer of BLIP-2, Li et al. 2023, arXiv:2301.12597, section 3.1.

    With Q `queries` learned vectors, T the tokens of the stream `text`, C those of all other
    streams (each W_s X_s + e_s, projected, with a learned vector per stream), and LN layer
    normalisation, block l computes

        [Q; T] <- [Q; T] + MultiHead(LN [Q; T])                self-attention, shared by both
        Q      <- Q + MultiHead(query LN Q, keys and values C)  where l is a multiple of `cross_every`
        Q      <- Q + MLP_Q(LN Q)
        T      <- T + MLP_T(LN T)
        fused  = mean of LN Q

    The words reach C only through the queries. Every query and word sees all of both, the paper's
    mask of image-text matching. In the paper C is one image; here it is the tokens of all streams
    but the text's. Blocks normalise first (Xiong et al. 2020, arXiv:2002.04745), not after. Without
    a `text` stream the queries talk among themselves, and look at every stream.

    The fused tokens are the queries, then those of the streams in sorted order: the text's after
    the last block, the others' as they are looked at (C). Where the text is missing the queries see
    no words; where all others are missing, cross-attention adds nothing but its bias. A row without
    any stream gives zeros.

    Attributes:
      text: the stream whose tokens share self-attention with the queries; none is no stream.
      queries: number of learned vectors.
      cross_every: block 0 and every n-th block from there have cross-attention.
      The others: see `mmjax.fusion.attention`.
    """

    text: str | None = None
    queries: int = 32
    cross_every: int = 2

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Features:
        """Features per stream, widths may differ.

        Returns:
          tokens `[B, queries + sum of L, width]`, pooled `[B, width]`.
        """
        streams = common.in_order(features)
        common.check_positive(depth=self.depth, queries=self.queries, cross_every=self.cross_every)
        if self.text is not None:
            common.check_stream("text", self.text, streams)
        tokens = common.TypedTokens(self.width, self.dtype, name="embed")(streams)
        learned = common.LearnedTokens(self.queries, self.width, self.dtype, name="learned_queries")
        queries = learned(len(common.present(streams)))
        others = [name for name in streams if name != self.text]
        context = context_mask = words = word_mask = None
        if others:
            norm = LayerNorm(dtype=self.dtype, name="context_norm")
            tokens |= {name: norm(tokens[name]) for name in others}
            context, context_mask = look_at(tokens, streams, others)
        if self.text is not None:
            words, word_mask = tokens[self.text], streams[self.text].mask
        # Argument 6 of __call__ (self is 0) is `train`, a Python bool.
        block = rematerialised(QFormerBlock, self.remat, static_argnums=(6,))
        for i in range(self.depth):
            looks = bool(others) and i % self.cross_every == 0
            queries, words = block(self.settings(), looks, self.dtype, name=f"blocks_{i}")(
                queries, words, word_mask, context, context_mask, train
            )
        queries = LayerNorm(dtype=self.dtype, name="norm")(queries)
        if self.text is not None:
            tokens[self.text] = LayerNorm(dtype=self.dtype, name="text_norm")(words)
        return common.gather(list(tokens.values()), streams, queries.mean(axis=1), own=queries)


class QFormerBlock(nn.Module):
    """One block of `QFormer`.

    Attributes:
      settings: width, heads, MLP width and dropout.
      looks: whether the queries look at the context.
      dtype: what it computes in.
    """

    settings: BlockSettings
    looks: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "B R D"],
        words: Float[Array, "B Lt D"] | None,
        word_mask: Bool[Array, "B Lt"] | None,
        context: Float[Array, "B Lc D"] | None,
        context_mask: Bool[Array, "B Lc"] | None,
        train: bool = False,
    ) -> tuple[Float[Array, "B R D"], Float[Array, "B Lt D"] | None]:
        s, count = self.settings, queries.shape[1]
        both, mask = queries, jnp.ones(queries.shape[:2], bool)
        if words is not None:
            both = jnp.concatenate([queries, words], axis=1)
            mask = jnp.concatenate([mask, word_mask], axis=1)
        attention = MultiHeadAttention(s.width, s.heads, dtype=self.dtype, name="attention")
        branch = attention(self._norm("attention_norm", both), mask=token_mask(mask))
        both = Residual(s, name="attention_residual")(both, branch, train)
        queries, words = both[:, :count], None if words is None else both[:, count:]
        if self.looks:
            cross = MultiHeadAttention(s.width, s.heads, dtype=self.dtype, name="cross_attention")
            branch = cross(self._norm("cross_norm", queries), context, token_mask(context_mask))
            queries = Residual(s, name="cross_residual")(queries, branch, train)
        queries = feed_forward(s, self.dtype, queries, train, prefix="query_")
        return queries, None if words is None else feed_forward(s, self.dtype, words, train, prefix="text_")

    def _norm(self, name, x):
        return LayerNorm(dtype=self.dtype, name=name)(x)
