"""The encoder of Whisper (Radford et al. 2022, arXiv:2212.04356, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.encoders.transformer import Embedded, TransformerEncoder
from mmjax.layers.mlp import ACTIVATIONS
from mmjax.layers.pooling import mean_pool
from mmjax.layers.position import LearnedPositions, sinusoids
from mmjax.types import Features


class Whisper(TransformerEncoder):
    """Log-mel frames [B, T, C] through two convolutions and a transformer; L = ceil(T / 2) tokens.

    `Features.pooled` is the mean of the real tokens. The published sizes are, as (width, depth, heads):
    tiny (384, 4, 6), base (512, 6, 8), small (768, 12, 12), medium (1024, 24, 16), large (1280, 32, 20).

    Attributes:
      position: fixed 'sinusoidal' (any length), or a 'learned' table. Published weights store their
        sinusoids, which a learned table keeps to the bit; to fine-tune them as they were trained, name
        `.*_encoder/positions/.*` in `optimizer.frozen`.
      max_length: most tokens that learned positions serve; 1500 are 30 s.
      attend_padding: padding counts as sound, in attention and among the tokens, as in the published
        weights; then the data must pad every clip to the same length, there 30 s of samples.
      eps, attention_biases: as in `TransformerEncoder`, whose other attributes it has too.
    """

    eps: float = 1e-5
    attention_biases: Sequence[str] = ("query", "value", "out")
    position: Literal["sinusoidal", "learned"] = "sinusoidal"
    max_length: int = 1500
    attend_padding: bool = False

    def setup(self):
        width = self.make_blocks().width
        self.conv1 = nn.Conv(width, (3,), padding=1, dtype=self.dtype)
        self.conv2 = nn.Conv(width, (3,), strides=2, padding=1, dtype=self.dtype)
        if self.position == "learned":
            self.positions = LearnedPositions(self.max_length, dtype=self.dtype)

    def embed(self, x: Float[Array, "B T C"], mask: Bool[Array, "#B #T"] | None, train: bool) -> Embedded:
        """What enters the blocks: token j is real where frame 2j or 2j + 1 is.

        Args:
          x: log-mel frames, normalised; C mel bins.
          mask: which frames are real; None is all.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` is no batch of frames, or too long for `max_length`.
        """
        check_rank("whisper", x, "log-mel frames [B, T, C]")
        batch, frames, _ = x.shape
        all_real = mask is None or self.attend_padding
        mask = full_mask(mask, batch, frames)
        if self.attend_padding:  # a missing clip is still missing
            mask = jnp.broadcast_to(mask.any(axis=1, keepdims=True), mask.shape)
        gelu = ACTIVATIONS["gelu"]  # whatever the activation of the blocks
        hidden = gelu(self.conv1(jnp.where(mask[..., None], x, 0)))
        # The second convolution sees zeros beyond a clip, whether it ends or is padded there.
        tokens = gelu(self.conv2(jnp.where(mask[..., None], hidden, 0)))
        mask = jnp.pad(mask, ((0, 0), (0, frames % 2))).reshape(batch, -1, 2).any(axis=-1)
        if self.position == "learned":
            tokens = self.positions(tokens)
        else:
            tokens = tokens + jnp.asarray(whisper_positions(*tokens.shape[1:]), self.dtype)
        tokens = self.embedding_dropout(tokens, deterministic=not train)
        return tokens, mask, None if all_real else mask

    def finish(self, tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Features:
        """Features from what leaves the blocks."""
        tokens = self.norm_tokens(tokens)
        return make_features(tokens, mask, self.norm_pooled(mean_pool(tokens, mask)))


def whisper_positions(length: int, width: int) -> Float[np.ndarray, "L D"]:
    """The sinusoids of Whisper, whose longest wavelength is 2 pi 10000 tokens exactly.

    Elsewhere it is that of a channel after the last one. A table of 1500 positions whose angles are
    rounded to float32, as in PyTorch, differs from this one by about 1e-4.

    Raises:
      ConfigError: where `width` is odd.
    """
    half = width // 2
    return sinusoids(length, width, 10_000.0 ** (half / max(half - 1, 1)))
