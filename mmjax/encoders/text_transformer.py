"""A transformer over token ids: bidirectional as BERT's, or causal as the text tower of CLIP."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.encoders.common import check_ids, full_mask, make_features
from mmjax.encoders.transformer import Embedded, TransformerEncoder
from mmjax.errors import ConfigError
from mmjax.layers.embedding import TokenEmbedding
from mmjax.layers.pooling import POOLINGS, Pooler, last_pool
from mmjax.layers.position import LearnedPositions, RelativeBias, sinusoids
from mmjax.types import Features


class TextTransformer(TransformerEncoder):
    """Token ids [B, L] through a transformer.

    By its settings it is also BERT and RoBERTa (`norm_position` 'post', `segments`, `pooling` 'cls'
    with `pooler`), MiniLM (the same, `pooling` 'mean'), and the text encoder of CLIP (`causal`,
    'quick_gelu', `pooling` 'eos') and of SigLIP ('gelu_tanh', `pooling` 'last', `attend_padding`).

    Attributes:
      vocab_size: V; 0 stands for that of the stream's tokenizer.
      max_length: longest sequence that learned positions serve.
      position: 'learned', fixed 'sinusoidal', 'rotary' in every attention, or a 'relative' bias of
        its scores; all but the first serve any length.
      segments: kinds of segment in an embedding table of which a single text uses the first; 0 has
        no table (Devlin et al. 2018, arXiv:1810.04805, section 3).
      causal: a token sees those before it only (Radford et al. 2021, arXiv:2103.00020, section 2.4).
      attend_padding: padding counts as text, in attention and in pooling, as in SigLIP; then every
        text must be padded to the same length in training and after it.
      pooling: 'mean', 'max', 'cls' the first token, 'last' the last real one, 'eos' the first whose id
        is `eos_id` (what follows it counts as padding; the last one where there is none).
      eos_id: for pooling 'eos'.
      pooler: a linear layer on the pooled vector, followed by tanh ('tanh', BERT) or not ('linear').

    The other attributes are those of `TransformerEncoder`.
    """

    vocab_size: int = 0
    max_length: int = 256
    position: Literal["learned", "sinusoidal", "rotary", "relative"] = "learned"
    segments: int = 0
    causal: bool = False
    attend_padding: bool = False
    pooling: Literal["mean", "max", "cls", "last", "eos"] = "mean"
    eos_id: int | None = None
    pooler: Literal["none", "tanh", "linear"] = "none"

    def setup(self):
        if self.pooling == "eos" and self.eos_id is None:
            raise ConfigError("eos_id: is missing; pooling 'eos' needs it, or use pooling 'last'")
        if self.attend_padding and self.pooling == "eos":
            raise ConfigError("attend_padding: is on, but pooling 'eos' takes padding away; use 'last'")
        settings = self.make_blocks(causal=self.causal, rotary=self.position == "rotary")
        normal = nn.initializers.normal(0.02)
        self.embedding = TokenEmbedding(
            self.vocab_size, settings.width, embedding_init=normal, dtype=self.dtype
        )
        if self.segments:
            self.segment = self.param("segments", normal, (self.segments, settings.width), jnp.float32)
        if self.position == "learned":
            self.positions = LearnedPositions(self.max_length, dtype=self.dtype)
        if self.position == "relative":
            self.relative = RelativeBias(settings.heads)
        if self.norm_position == "post":
            self.embedding_norm = settings.make_norm(self.dtype)
        if self.pooler != "none":
            activation = "tanh" if self.pooler == "tanh" else "none"
            self.pooled_layer = Pooler(activation, dtype=self.dtype, name="pooler")

    def embed(self, x: Int[Array, "B L"], mask: Bool[Array, "#B #L"] | None, train: bool) -> Embedded:
        """What enters the blocks.

        Args:
          x: ids below `vocab_size`.
          mask: which tokens are real; None is all.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` are no ids, too many for `max_length`, or `vocab_size` is 0.
        """
        check_ids("text_transformer", x, self.vocab_size)
        hides = (mask is not None and not self.attend_padding) or self.pooling == "eos"
        mask = full_mask(mask, *x.shape)
        if self.attend_padding:  # a missing text is still missing
            mask = jnp.broadcast_to(mask.any(axis=1, keepdims=True), mask.shape)
        if self.pooling == "eos":
            mask = mask & ~after_first(x == self.eos_id)
        tokens = self.embedding(jnp.where(mask, x, 0))
        if self.segments:
            tokens = tokens + self.segment[0].astype(self.dtype)
        if self.position == "learned":
            tokens = self.positions(tokens)
        elif self.position == "sinusoidal":
            tokens = tokens + jnp.asarray(sinusoids(*tokens.shape[1:]), self.dtype)
        if self.norm_position == "post":
            tokens = self.embedding_norm(tokens)
        return self.embedding_dropout(tokens, deterministic=not train), mask, mask if hides else None

    def attention_bias(self, length: int) -> Float[Array, "1 H L L"] | None:
        """The relative positions, where there are such."""
        return self.relative(length, length) if self.position == "relative" else None

    def finish(self, tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Features:
        """Features from what leaves the blocks."""
        tokens = self.norm_tokens(tokens)
        pool = last_pool if self.pooling == "eos" else POOLINGS[self.pooling]
        pooled = self.norm_pooled(pool(tokens, mask))
        if self.pooler != "none":
            pooled = self.pooled_layer(pooled)
        return make_features(tokens, mask, pooled)


def after_first(hit: Bool[Array, "B L"]) -> Bool[Array, "B L"]:
    """True at every position after the first True of its row."""
    hits = hit.astype(jnp.int32)
    return jnp.cumsum(hits, axis=1) - hits > 0
