"""A transformer over token ids: bidirectional as BERT's, or causal as the text tower of CLIP."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.encoders.common import Variant, check_ids, full_mask, make_features, transformer_size
from mmjax.errors import ConfigError
from mmjax.layers.mlp import Activation
from mmjax.layers.pooling import POOLINGS, last_pool
from mmjax.layers.position import LearnedPositions, sinusoids
from mmjax.layers.transformer import BlockSettings, transformer_blocks
from mmjax.types import Features


class TextTransformer(nn.Module):
    """Token ids [B, L] through a transformer.

    Attributes:
      variant: a size by name, see `mmjax.encoders.common.SIZES`.
      width, depth, heads, mlp_width: what differs from the variant; all but the last for 'custom'.
      vocab_size: V; 0 stands for that of the stream's tokenizer.
      max_length: longest sequence that learned positions serve.
      position: 'learned', or fixed 'sinusoidal' (any length).
      causal: a token sees those before it only (Radford et al. 2021, arXiv:2103.00020, section 2.4).
      pooling: 'mean', 'max', 'cls' the first token, 'last' the last real one, 'eos' the first whose id
        is `eos_id` (what follows it counts as padding; the last one where there is none).
      eos_id: for pooling 'eos'.
      dropout: rate of the embedding, attention and MLP outputs.
      drop_path: probability that the last block's branches are dropped; earlier ones' less.
      activation, eps, norm_position: see `mmjax.layers.transformer.BlockSettings`.
      remat: recompute the blocks' activations in the backward pass.
      dtype: what it computes in.
    """

    variant: Variant = "S"
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    mlp_width: int | None = None
    vocab_size: int = 0
    max_length: int = 256
    position: Literal["learned", "sinusoidal"] = "learned"
    causal: bool = False
    pooling: Literal["mean", "max", "cls", "last", "eos"] = "mean"
    eos_id: int | None = None
    dropout: float = 0.0
    drop_path: float = 0.0
    activation: Activation = "gelu"
    eps: float = 1e-6
    norm_position: Literal["pre", "post"] = "pre"
    remat: Any = False
    dtype: Any = jnp.float32

    def setup(self):
        if self.pooling == "eos" and self.eos_id is None:
            raise ConfigError("eos_id: is missing; pooling 'eos' needs it, or use pooling 'last'")
        size = transformer_size(self.variant, self.width, self.depth, self.heads, self.mlp_width)
        settings = BlockSettings(
            width=size.width,
            heads=size.heads,
            mlp_width=size.mlp_width,
            activation=self.activation,
            causal=self.causal,
            eps=self.eps,
            norm_position=self.norm_position,
            dropout=self.dropout,
        )
        self.embedding = nn.Embed(
            self.vocab_size, size.width, embedding_init=nn.initializers.normal(0.02), dtype=self.dtype
        )
        if self.position == "learned":
            self.positions = LearnedPositions(self.max_length, dtype=self.dtype)
        self.embedding_dropout = nn.Dropout(self.dropout)
        self.blocks = transformer_blocks(
            size.depth, settings, drop_path=self.drop_path, remat=self.remat, dtype=self.dtype
        )
        # Normalises the output where blocks normalise first, the embedding where they do so last.
        self.norm = settings.make_norm(self.dtype)

    def __call__(
        self,
        x: Int[Array, "B L"],
        mask: Bool[Array, "#B #L"] | None = None,
        *,
        train: bool = False,
    ) -> Features:
        """Encodes token ids.

        Args:
          x: ids below `vocab_size`.
          mask: which tokens are real; None is all.
          train: whether dropout and drop path are on.

        Raises:
          ConfigError: where `x` are no ids, too many for `max_length`, or `vocab_size` is 0.
        """
        tokens, token_mask = self.embed(x, mask, train)
        attention_mask = None if mask is None and self.pooling != "eos" else token_mask
        for block in self.blocks:
            tokens = block(tokens, attention_mask, train)
        return self.finish(tokens, token_mask)

    def embed(
        self, x: Int[Array, "B L"], mask: Bool[Array, "#B #L"] | None, train: bool
    ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """What enters the blocks."""
        check_ids("text_transformer", x, self.vocab_size)
        mask = full_mask(mask, *x.shape)
        if self.pooling == "eos":
            mask = mask & ~after_first(x == self.eos_id)
        tokens = self.embedding(jnp.where(mask, x, 0))
        if self.position == "learned":
            tokens = self.positions(tokens)
        else:
            tokens = tokens + jnp.asarray(sinusoids(*tokens.shape[1:]), self.dtype)
        if self.norm_position == "post":
            tokens = self.norm(tokens)
        return self.embedding_dropout(tokens, deterministic=not train), mask

    def finish(self, tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Features:
        """Features from what leaves the blocks."""
        if self.norm_position == "pre":
            tokens = self.norm(tokens)
        pool = last_pool if self.pooling == "eos" else POOLINGS[self.pooling]
        return make_features(tokens, mask, pool(tokens, mask))


def after_first(hit: Bool[Array, "B L"]) -> Bool[Array, "B L"]:
    """True at every position after the first True of its row."""
    hits = hit.astype(jnp.int32)
    return jnp.cumsum(hits, axis=1) - hits > 0
