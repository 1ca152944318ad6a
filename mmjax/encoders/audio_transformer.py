"""A transformer over audio frames, such as log-mel spectra (after Gong et al. 2021, arXiv:2104.01778)."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import Variant, check_rank, full_mask, make_features, transformer_size
from mmjax.layers.mlp import Activation
from mmjax.layers.pooling import AttentionPool, mean_pool
from mmjax.layers.position import LearnedPositions, sinusoids
from mmjax.layers.transformer import BlockSettings, transformer_blocks
from mmjax.types import Features


class AudioTransformer(nn.Module):
    """Frames [B, T, C] as tokens, each of one frame or of several neighbours.

    Attributes:
      variant: a size by name, see `mmjax.encoders.common.SIZES`.
      width, depth, heads, mlp_width: what differs from the variant; all but the last for 'custom'.
      frames_per_token: neighbouring frames that make one token, L = ceil(T / frames_per_token).
      position: fixed 'sinusoidal' (any length), or 'learned'.
      max_length: most tokens that learned positions serve.
      pooling: 'mean' of the tokens, or 'map' attention pooling.
      dropout: rate of the embedding, attention and MLP outputs.
      drop_path: probability that the last block's branches are dropped; earlier ones' less.
      activation, eps: see `mmjax.layers.transformer.BlockSettings`.
      remat: recompute the blocks' activations in the backward pass.
      dtype: what it computes in.
    """

    variant: Variant = "S"
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    mlp_width: int | None = None
    frames_per_token: int = 1
    position: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_length: int = 1024
    pooling: Literal["mean", "map"] = "mean"
    dropout: float = 0.0
    drop_path: float = 0.0
    activation: Activation = "gelu"
    eps: float = 1e-6
    remat: Any = False
    dtype: Any = jnp.float32

    def setup(self):
        size = transformer_size(self.variant, self.width, self.depth, self.heads, self.mlp_width)
        settings = BlockSettings(
            width=size.width,
            heads=size.heads,
            mlp_width=size.mlp_width,
            activation=self.activation,
            eps=self.eps,
            dropout=self.dropout,
        )
        self.frame = nn.Dense(size.width, dtype=self.dtype)
        if self.position == "learned":
            self.positions = LearnedPositions(self.max_length, dtype=self.dtype)
        self.embedding_dropout = nn.Dropout(self.dropout)
        self.blocks = transformer_blocks(
            size.depth, settings, drop_path=self.drop_path, remat=self.remat, dtype=self.dtype
        )
        self.norm = settings.make_norm(self.dtype)
        if self.pooling == "map":
            self.pool = AttentionPool(
                size.heads, size.mlp_width, self.activation, eps=self.eps, dtype=self.dtype
            )

    def __call__(
        self,
        x: Float[Array, "B T C"],
        mask: Bool[Array, "#B #T"] | None = None,
        *,
        train: bool = False,
    ) -> Features:
        """Encodes audio.

        Args:
          x: frames.
          mask: which frames are real; None is all.
          train: whether dropout and drop path are on.

        Raises:
          ConfigError: where `x` is no batch of frames, or too long for `max_length`.
        """
        tokens, token_mask = self.embed(x, mask, train)
        for block in self.blocks:
            tokens = block(tokens, None if mask is None else token_mask, train)
        return self.finish(tokens, token_mask)

    def embed(
        self, x: Float[Array, "B T C"], mask: Bool[Array, "#B #T"] | None, train: bool
    ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """What enters the blocks: a token is real where any of its frames is."""
        check_rank("audio_transformer", x, "audio frames [B, T, C]")
        batch, frames, channels = x.shape
        mask = full_mask(mask, batch, frames)
        n = self.frames_per_token
        lacking = -frames % n
        x = jnp.pad(jnp.where(mask[..., None], x, 0), ((0, 0), (0, lacking), (0, 0)))
        mask = jnp.pad(mask, ((0, 0), (0, lacking))).reshape(batch, -1, n).any(axis=-1)
        tokens = self.frame(x.reshape(batch, -1, n * channels))
        if self.position == "learned":
            tokens = self.positions(tokens)
        else:
            tokens = tokens + jnp.asarray(sinusoids(*tokens.shape[1:]), self.dtype)
        return self.embedding_dropout(tokens, deterministic=not train), mask

    def finish(self, tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Features:
        """Features from what leaves the blocks."""
        tokens = self.norm(tokens)
        pooled = mean_pool(tokens, mask) if self.pooling == "mean" else self.pool(tokens, mask)
        return make_features(tokens, mask, pooled)
