"""A transformer over audio frames, such as log-mel spectra (after Gong et al. 2021, arXiv:2104.01778)."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.encoders.transformer import Embedded, TransformerEncoder
from mmjax.layers.pooling import AttentionPool, mean_pool
from mmjax.layers.position import LearnedPositions, sinusoids
from mmjax.types import Features


class AudioTransformer(TransformerEncoder):
    """Frames [B, T, C] as tokens, each of one frame or of several neighbours.

    Attributes:
      frames_per_token: neighbouring frames that make one token, L = ceil(T / frames_per_token).
      position: fixed 'sinusoidal' (any length), or 'learned'.
      max_length: most tokens that learned positions serve.
      pooling: 'mean' of the tokens, or 'map' attention pooling.

    The other attributes are those of `TransformerEncoder`.
    """

    frames_per_token: int = 1
    position: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_length: int = 1024
    pooling: Literal["mean", "map"] = "mean"

    def setup(self):
        settings = self.make_blocks()
        self.frame = nn.Dense(settings.width, dtype=self.dtype)
        if self.position == "learned":
            self.positions = LearnedPositions(self.max_length, dtype=self.dtype)
        if self.pooling == "map":
            self.pool = AttentionPool(
                settings.heads, settings.mlp_width, self.activation, eps=self.eps, dtype=self.dtype
            )

    def embed(self, x: Float[Array, "B T C"], mask: Bool[Array, "#B #T"] | None, train: bool) -> Embedded:
        """What enters the blocks: a token is real where any of its frames is.

        Args:
          x: frames.
          mask: which frames are real; None is all.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` is no batch of frames, or too long for `max_length`.
        """
        check_rank("audio_transformer", x, "audio frames [B, T, C]")
        batch, frames, channels = x.shape
        all_real = mask is None
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
        tokens = self.embedding_dropout(tokens, deterministic=not train)
        return tokens, mask, None if all_real else mask

    def finish(self, tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Features:
        """Features from what leaves the blocks."""
        tokens = self.norm_tokens(tokens)
        pooled = mean_pool(tokens, mask) if self.pooling == "mean" else self.pool(tokens, mask)
        return make_features(tokens, mask, self.norm_pooled(pooled))
