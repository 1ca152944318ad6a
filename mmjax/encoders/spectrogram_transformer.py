"""Audio Spectrogram Transformer, AST (Gong et al. 2021, arXiv:2104.01778)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.encoders.transformer import Embedded, TransformerEncoder
from mmjax.errors import ConfigError
from mmjax.layers.position import LearnedPositionsOverTime
from mmjax.types import Features


class SpectrogramTransformer(TransformerEncoder):
    """Log-mel frames [B, T, C] as an image, cut into overlapping patches (section 2.1 of the paper).

    A class token and a distillation token stand before the patches; `Features.pooled` is the mean of
    the two, `Features.tokens` are the patches, moment by moment and within a moment from low
    frequencies to high ones. L = moments * bands with moments = (T - patch_size) // time_stride + 1 and
    bands = (C - patch_size) // frequency_stride + 1; what makes no whole patch is left out.

    The learned vector per patch is for `frames` frames; a shorter clip takes the first ones, for a
    longer one they are interpolated.

    Attributes:
      patch_size: side of a patch: frames, and mel bins.
      time_stride, frequency_stride: from one patch to the next, in frames and mel bins.
      frames: T that the positions are made for; 1024 are 10.24 s in steps of 10 ms.
      attend_padding: padding counts as sound, in attention and among the tokens, as in the published
        weights; then the data must pad every clip to the same length.

    The other attributes are those of `TransformerEncoder`.
    """

    patch_size: int = 16
    time_stride: int = 10
    frequency_stride: int = 10
    frames: int = 1024
    attend_padding: bool = False

    def setup(self):
        if self.frames < self.patch_size:
            raise ConfigError(f"frames: got {self.frames}, expected at least patch_size, {self.patch_size}")
        settings = self.make_blocks()
        self.patch = nn.Conv(
            settings.width,
            (self.patch_size, self.patch_size),
            (self.time_stride, self.frequency_stride),
            padding="VALID",
            dtype=self.dtype,
        )
        self.positions = LearnedPositionsOverTime(self._moments(self.frames), dtype=self.dtype)
        # The class token, and the distillation token.
        self.cls = self.param("cls", nn.initializers.normal(0.02), (2, settings.width), jnp.float32)

    def _moments(self, frames):
        return (frames - self.patch_size) // self.time_stride + 1

    def embed(self, x: Float[Array, "B T C"], mask: Bool[Array, "#B #T"] | None, train: bool) -> Embedded:
        """What enters the blocks: the two tokens, always real, then the patches.

        A patch is real where all of its frames are; of a clip shorter than a patch the first one is.

        Args:
          x: log-mel frames, normalised; C mel bins.
          mask: which frames are real; None is all.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` is no batch of frames, or smaller than a patch.
        """
        check_rank("spectrogram_transformer", x, "log-mel frames [B, T, C]")
        batch, frames, bins = x.shape
        if min(frames, bins) < self.patch_size:
            raise ConfigError(
                f"spectrogram_transformer: got {frames} frames of {bins} mel bins, expected at least "
                f"{self.patch_size} of each (patch_size)"
            )
        all_real = mask is None or self.attend_padding
        mask = full_mask(mask, batch, frames)
        if self.attend_padding:  # a missing clip is still missing
            mask = jnp.broadcast_to(mask.any(axis=1, keepdims=True), mask.shape)
        grid = self.patch(jnp.where(mask[..., None], x, 0)[..., None])
        moments, bands = grid.shape[1:3]
        starts = jnp.arange(moments)[:, None] * self.time_stride
        inside = mask[:, starts + jnp.arange(self.patch_size)]  # [B, moments, patch_size]
        mask = inside.all(axis=-1).at[:, 0].set(inside[:, 0].any(axis=-1))
        mask = jnp.repeat(mask, bands, axis=1)
        grid = self.positions(grid).reshape(batch, moments * bands, -1)
        tokens = jnp.where(mask[..., None], grid, 0)
        first = jnp.broadcast_to(self.cls.astype(self.dtype), (batch, *self.cls.shape))
        tokens = jnp.concatenate([first, tokens], axis=1)
        mask = jnp.pad(mask, ((0, 0), (len(self.cls), 0)), constant_values=True)
        tokens = self.embedding_dropout(tokens, deterministic=not train)
        return tokens, mask, None if all_real else mask

    def finish(self, tokens: Float[Array, "B PL D"], mask: Bool[Array, "B PL"]) -> Features:
        """Features from what leaves the blocks."""
        tokens = self.norm_tokens(tokens)
        first = len(self.cls)
        pooled = self.norm_pooled(tokens[:, :first].mean(axis=1))
        return make_features(tokens[:, first:], mask[:, first:], pooled)
