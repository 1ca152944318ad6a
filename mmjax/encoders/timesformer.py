"""TimeSformer: video with attention over time and space apart (Bertasius et al. 2021, arXiv:2102.05095)."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.encoders.transformer import Embedded, TransformerEncoder
from mmjax.errors import ConfigError
from mmjax.layers.divided_attention import DividedBlock
from mmjax.layers.patch import PatchEmbed
from mmjax.layers.position import LearnedPositions2D
from mmjax.layers.transformer import BlockSettings
from mmjax.types import Features


class TimeSformer(TransformerEncoder):
    """Videos [B, T, height, width, C] as patches of each frame, with divided attention (section 3).

    `Features.pooled` is the class token, `Features.tokens` are the patches frame by frame, and within a
    frame row by row. Learned vectors per place (interpolated for another image size) and per frame are
    added to the patches; a position of the class token would be no further parameter.

    Attributes:
      patch_size: side of a patch, in pixels.
      frames: T; a shorter video is padded to it, with frames that are not real.

    The other attributes are those of `TransformerEncoder`; `norm_position` is 'pre'.
    """

    patch_size: int = 16
    frames: int = 8

    # A fusion between the blocks can add nothing to tokens that are counted by frames and places.
    fixed_tokens: ClassVar[bool] = True

    def setup(self):
        if self.norm_position != "pre":
            raise ConfigError(f"norm_position: got '{self.norm_position}', timesformer has only 'pre'")
        settings = self.make_blocks()
        self.patch = PatchEmbed(settings.width, self.patch_size, dtype=self.dtype)
        self.positions = LearnedPositions2D(dtype=self.dtype)
        normal = nn.initializers.normal(0.02)
        self.time = self.param("time", normal, (self.frames, settings.width), jnp.float32)
        self.cls = self.param("cls", normal, (1, settings.width), jnp.float32)

    def make_stack(self, settings: BlockSettings) -> list[nn.Module] | nn.Module:
        """Blocks of divided attention."""
        return super().make_stack(settings, block=DividedBlock, frames=self.frames)

    def embed(
        self,
        x: Float[Array, "B T height width C"],
        mask: Bool[Array, "#B #T"] | None,
        train: bool,
    ) -> Embedded:
        """What enters the blocks: the class token, always real, then the patches of each frame.

        Args:
          x: frames, normalised.
          mask: which frames are real; None is all.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` is no batch of videos, has more than `frames` frames, or its frames do
            not divide into patches.
        """
        check_rank("timesformer", x, "videos [B, T, height, width, C]")
        batch, length = x.shape[:2]
        if length > self.frames:
            raise ConfigError(
                f"timesformer: got {length} frames, expected at most {self.frames} (frames); raise it, or "
                "sample fewer"
            )
        all_real = mask is None and length == self.frames
        padding = self.frames - length
        mask = full_mask(mask, batch, length)
        x = jnp.pad(
            jnp.where(mask[..., None, None, None], x, 0), ((0, 0), (0, padding), (0, 0), (0, 0), (0, 0))
        )
        mask = jnp.pad(mask, ((0, 0), (0, padding)))
        images = x.reshape(batch * self.frames, *x.shape[2:])
        grid = self.positions(self.patch(images))
        _, rows, columns, width = grid.shape
        patches = grid.reshape(batch, self.frames, rows * columns, width)
        patches = patches + self.time[:, None].astype(self.dtype)
        cls = jnp.broadcast_to(self.cls.astype(self.dtype), (batch, 1, width))
        tokens = jnp.concatenate([cls, patches.reshape(batch, -1, width)], axis=1)
        mask = jnp.pad(jnp.repeat(mask, rows * columns, axis=1), ((0, 0), (1, 0)), constant_values=True)
        tokens = self.embedding_dropout(tokens, deterministic=not train)
        return tokens, mask, None if all_real else mask

    def finish(self, tokens: Float[Array, "B PL D"], mask: Bool[Array, "B PL"]) -> Features:
        """Features from what leaves the blocks."""
        tokens = self.norm_tokens(tokens)
        return make_features(tokens[:, 1:], mask[:, 1:], self.norm_pooled(tokens[:, 0]))
