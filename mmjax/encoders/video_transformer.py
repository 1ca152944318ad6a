"""Video as tubelets that all attend to each other: VideoMAE (Tong et al. 2022, arXiv:2203.12602), ViViT."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.encoders.transformer import Embedded, TransformerEncoder
from mmjax.errors import ConfigError
from mmjax.layers.patch import TubeletEmbed
from mmjax.layers.pooling import Pooler, mean_pool
from mmjax.layers.position import LearnedPositionsOverTime, sinusoids
from mmjax.types import Features


class VideoTransformer(TransformerEncoder):
    """Videos [B, T, height, width, C] through a transformer with joint attention over space and time.

    By its settings it is the encoder of VideoMAE (`attention_biases` query, value and out,
    `final_norm` 'pooled' or 'none'; 'all' as it was pretrained) and model 1 of ViViT (Arnab et al.
    2021, arXiv:2103.15691, section 3.3: `position` 'learned', `pooling` 'cls', `pooler`).

    `Features.tokens` are the tubelets moment by moment, and within a moment row by row; the class
    token is not among them. A learned table has no entry for it: a position added to a learned vector
    is no further parameter.

    Attributes:
      patch_size: side of a tubelet, in pixels.
      tubelet_size: its length, in frames; a last one that is not full is filled up with zeros.
      position: fixed 'sinusoidal' of the token's number, or 'learned' per moment and place, for
        `frames` frames: a shorter video takes the first moments, for a longer one and for other image
        sizes they are interpolated.
      frames: T that learned positions are made for.
      pooling: 'mean' of the real tubelets, or 'cls' a class token.
      pooler: a linear layer and tanh on the pooled vector.

    The other attributes are those of `TransformerEncoder`.
    """

    patch_size: int = 16
    tubelet_size: int = 2
    position: Literal["sinusoidal", "learned"] = "sinusoidal"
    frames: int = 16
    pooling: Literal["mean", "cls"] = "mean"
    pooler: bool = False

    def setup(self):
        if self.frames < 1 or self.tubelet_size < 1:
            raise ConfigError(
                f"frames: got {self.frames}, and tubelet_size {self.tubelet_size}, expected 1 or more"
            )
        width = self.make_blocks().width
        self.tubelet = TubeletEmbed(width, self.tubelet_size, self.patch_size, dtype=self.dtype)
        if self.position == "learned":
            moments = -(-self.frames // self.tubelet_size)
            self.positions = LearnedPositionsOverTime(moments, dtype=self.dtype)
        if self.pooling == "cls":
            self.cls = self.param("cls", nn.initializers.normal(0.02), (1, width), jnp.float32)
        if self.pooler:
            self.pooled_layer = Pooler(dtype=self.dtype, name="pooler")

    def embed(
        self,
        x: Float[Array, "B T height width C"],
        mask: Bool[Array, "#B #T"] | None,
        train: bool,
    ) -> Embedded:
        """What enters the blocks: a tubelet is real where any of its frames is, the class token always.

        Args:
          x: frames, normalised.
          mask: which frames are real; None is all.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` is no batch of videos, or its frames do not divide into patches.
        """
        check_rank("video_transformer", x, "videos [B, T, height, width, C]")
        batch, frames = x.shape[:2]
        all_real = mask is None
        mask = full_mask(mask, batch, frames)
        x = jnp.where(mask[..., None, None, None], x, 0)
        lacking = -frames % self.tubelet_size
        x = jnp.pad(x, ((0, 0), (0, lacking), (0, 0), (0, 0), (0, 0)))
        mask = jnp.pad(mask, ((0, 0), (0, lacking))).reshape(batch, -1, self.tubelet_size).any(axis=-1)

        grid = self.tubelet(x)
        _, moments, rows, columns, width = grid.shape
        if self.position == "learned":
            grid = self.positions(grid)
        tokens = grid.reshape(batch, moments * rows * columns, width)
        if self.position == "sinusoidal":
            positions = sinusoids(*tokens.shape[1:], interleaved=True)
            tokens = tokens + jnp.asarray(positions, self.dtype)
        mask = jnp.repeat(mask, rows * columns, axis=1)
        if self.pooling == "cls":
            cls = jnp.broadcast_to(self.cls.astype(self.dtype), (batch, 1, width))
            tokens = jnp.concatenate([cls, tokens], axis=1)
            mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        tokens = self.embedding_dropout(tokens, deterministic=not train)
        return tokens, mask, None if all_real else mask

    def finish(self, tokens: Float[Array, "B PL D"], mask: Bool[Array, "B PL"]) -> Features:
        """Features from what leaves the blocks."""
        tokens = self.norm_tokens(tokens)
        if self.pooling == "cls":
            pooled, tokens, mask = tokens[:, 0], tokens[:, 1:], mask[:, 1:]
        else:
            pooled = mean_pool(tokens, mask)
        pooled = self.norm_pooled(pooled)
        if self.pooler:
            pooled = self.pooled_layer(pooled)
        return make_features(tokens, mask, pooled)
