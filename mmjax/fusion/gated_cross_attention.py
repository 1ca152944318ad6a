"""Gated cross-attention layers between the blocks of one stream, through which it looks at the others."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.fusion import common
from mmjax.fusion.attention import look_at
from mmjax.fusion.perceiver_resampler import PerceiverResampler
from mmjax.fusion.stack import Stack
from mmjax.layers.attention import MultiHeadAttention, token_mask
from mmjax.layers.mlp import MLP
from mmjax.layers.norms import LayerNorm
from mmjax.layers.pooling import mean_pool
from mmjax.layers.remat import rematerialised
from mmjax.types import Features


class GatedCrossAttention(nn.Module):
    """The GATED XATTN-DENSE layers of Flamingo, Alayrac et al. 2022, arXiv:2204.14198, section 3.1.2.

    With Y the tokens of the `query` stream between two blocks of its own encoder, C what it looks at,
    a and b learned numbers that start at 0, and LN layer normalisation, a layer before every
    `every`-th block computes

        Y <- Y + tanh(a) MultiHead(query LN Y, keys and values C)
        Y <- Y + tanh(b) MLP(LN Y)

    At the start tanh(0) = 0, so the query stream's encoder computes what it does without this fusion:
    pretrained weights are not disturbed. C is [W_s X_s + e_s for every other stream s], normalised,
    with X_s the tokens of s, W_s a projection and e_s a learned vector; or, with `queries` above 0,
    that many vectors of a Perceiver resampler over the X_s (see `perceiver_resampler`), as in the paper.

    The paper's one image comes from before the text it stands in, and words see only the image before
    them; here every token of the query stream sees all of C. Its MLP has GELU for the squared ReLU.

    It works inside the query stream's encoder, which must be a stack of transformer blocks; it may be
    causal. The other encoders may be any. The query stream's features have seen the others; theirs
    have not. The fused tokens are those of the streams in sorted order, the query stream's after the
    last block and the others' as W_s X_s + e_s. The fused vector is the pooled vector of the query
    stream, or, where an example lacks it, the mean of C. Where all others are missing attention adds
    zeros. A row without any stream gives zeros.

    Attributes:
      query: the stream that looks at the others.
      every: a layer stands before blocks 0, `every`, 2 `every`, ...
      queries: number of vectors the resampler makes of the other streams; 0 has no resampler.
      resampler_depth: its layers.
      heads: H, a divisor of the width of the query stream.
      mlp_width: F; 0 is 4 D.
      dropout: rate on each branch, in training.
      remat: which activations of a layer are recomputed, see `mmjax.layers.remat`.
      dtype: what it computes in.
    """

    query: str
    every: int = 1
    queries: int = 0
    resampler_depth: int = 6
    heads: int = 8
    mlp_width: int = 0
    dropout: float = 0.0
    remat: Any = False
    dtype: Any = jnp.float32

    inside: ClassVar[bool] = True

    @nn.compact
    def __call__(self, stacks: dict[str, Stack], *, train: bool = False) -> dict[str, Features]:
        """A stack per stream -> the features of every stream, and 'fused'."""
        stacks = common.in_order_of_names(stacks)
        common.check_positive(every=self.every)
        common.check_stream("query", self.query, stacks)
        features = {name: stack.features() for name, stack in stacks.items() if name != self.query}
        stack = stacks[self.query]
        x, mask, visible = stack.embed()
        others, context, context_mask = self._look_at(features, x.shape[-1], train)
        # Argument 4 of __call__ (self is 0) is `train`, a Python bool.
        layer = rematerialised(GatedLayer, self.remat, static_argnums=(4,))
        for i in range(0, stack.depth, self.every):
            if context is not None:
                gated = layer(self.heads, self.mlp_width, self.dropout, self.dtype, name=f"layers_{i}")
                x = gated(x, context, context_mask, train)
            x = stack.run(x, visible, i, min(i + self.every, stack.depth))

        features[self.query] = looking = stack.finish(x, mask)
        pooled = looking.pooled
        if context is not None:
            seen = mean_pool(context, context_mask)
            pooled = jnp.where(looking.present[:, None], pooled, seen.astype(pooled.dtype))
        features = {name: features[name] for name in stacks}
        fused = [others.get(name, entry.tokens) for name, entry in features.items()]
        return {**features, "fused": common.gather(fused, features, pooled)}

    def _look_at(self, features, width, train):
        """The other streams' tokens, what of them is looked at, and its mask."""
        if not features:
            return {}, None, None
        if self.queries == 0:
            tokens = common.TypedTokens(width, self.dtype, name="embed")(features)
            context, mask = look_at(tokens, features, features)
            return tokens, LayerNorm(dtype=self.dtype, name="context_norm")(context), mask
        resampler = PerceiverResampler(
            width=width,
            queries=self.queries,
            depth=self.resampler_depth,
            heads=self.heads,
            mlp_width=self.mlp_width,
            dropout=self.dropout,
            remat=self.remat,
            dtype=self.dtype,
            name="resampler",
        )
        made = resampler(features, train=train)
        entries = {**features, "fused": made}
        tokens = {name: common.stream_tokens(entries, name) for name in features}
        return tokens, made.tokens[:, : self.queries], made.mask[:, : self.queries]


class GatedLayer(nn.Module):
    """One layer of `GatedCrossAttention`.

    Attributes:
      heads, mlp_width, dropout, dtype: see there.
    """

    heads: int
    mlp_width: int = 0
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        context: Float[Array, "B Lk D"],
        mask: Bool[Array, "B Lk"],
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        width = x.shape[-1]
        drop = nn.Dropout(self.dropout, deterministic=not train)
        # Without a bias after the sum, so that a query that sees no key adds zeros.
        attention = MultiHeadAttention(
            width, self.heads, biased=("query", "key", "value"), dtype=self.dtype, name="cross_attention"
        )
        normed = LayerNorm(dtype=self.dtype, name="attention_norm")(x)
        x = x + self._gate("attention_gate") * drop(attention(normed, context, token_mask(mask)))
        mlp = MLP(self.mlp_width or 4 * width, dropout=self.dropout, dtype=self.dtype, name="mlp")
        normed = LayerNorm(dtype=self.dtype, name="mlp_norm")(x)
        x = x + self._gate("mlp_gate") * drop(mlp(normed, train))
        return nn.with_logical_constraint(x, ("batch", "length", "width"))

    def _gate(self, name):
        return jnp.tanh(self.param(name, nn.initializers.zeros, (), jnp.float32)).astype(self.dtype)
