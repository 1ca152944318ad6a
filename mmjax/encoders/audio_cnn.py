"""A convolutional network over time."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.errors import ConfigError
from mmjax.layers.norms import BatchNorm, LayerNorm
from mmjax.layers.pooling import POOLINGS
from mmjax.types import Features


class AudioCNN(nn.Module):
    """Frames [B, T, C] through strided convolutions; what is left of time are the tokens.

    Padding is set to zero before each convolution, so a sequence gives the same whatever it is padded
    to, and whatever with.

    Attributes:
      widths: channels of each convolution; the last is D.
      kernel: frames a convolution sees.
      kernels: the same for each convolution, where they differ.
      stride: of each convolution; every one leaves ceil(T / stride) frames.
      padding: zeros before the first frame and after the last; none is half of kernel - 1. With fewer
        a convolution leaves floor((T + 2 padding - kernel) / stride) + 1 frames.
      norm: 'layer' over the channels of each frame, or 'batch'; 'none' gives the convolutions biases.
      pooling: over the tokens.
      dropout: rate after each convolution.
      dtype: what it computes in.
    """

    widths: list[int] = field(default_factory=lambda: [64, 128, 256])
    kernel: int = 5
    kernels: list[int] | None = None
    stride: int = 2
    padding: int | None = None
    norm: Literal["layer", "batch", "none"] = "layer"
    pooling: Literal["mean", "max"] = "mean"
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
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
          train: whether dropout is on and batch statistics are those of the batch.

        Raises:
          ConfigError: where `x` is no batch of frames, or `kernels` and `padding` fit no convolution.
        """
        check_rank("audio_cnn", x, "audio frames [B, T, C]")
        mask = full_mask(mask, *x.shape[:2])
        x = x.astype(self.dtype)
        for i, (width, kernel) in enumerate(zip(self.widths, self._kernels(), strict=True)):
            x = jnp.where(mask[..., None], x, 0)
            # Output t looks at frames from t * stride - side, whatever the length.
            side = (kernel - 1) // 2 if self.padding is None else self.padding
            x = nn.Conv(
                width,
                (kernel,),
                strides=(self.stride,),
                padding=((side, side),),
                use_bias=self.norm == "none",  # a normalisation has one
                dtype=self.dtype,
                name=f"conv_{i}",
            )(x)
            # It is real as long as its kernel is within the real frames and their padding.
            mask = mask[:, kernel - 1 - 2 * side :: self.stride]
            if self.norm == "batch":
                x = BatchNorm(dtype=self.dtype, name=f"norm_{i}")(x, mask, train)
            elif self.norm == "layer":
                x = LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x)
            x = nn.relu(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return make_features(x, mask, POOLINGS[self.pooling](x, mask))

    def _kernels(self):
        """One for each convolution."""
        kernels = self.kernels or [self.kernel] * len(self.widths)
        if len(kernels) != len(self.widths):
            raise ConfigError(
                f"audio_cnn.kernels: got {len(kernels)}, expected {len(self.widths)}, one for each of widths"
            )
        most = (min(kernels) - 1) // 2
        if self.padding is not None and not 0 <= self.padding <= most:
            raise ConfigError(
                f"audio_cnn.padding: got {self.padding}, expected 0 to {most}, half of the least kernel - 1"
            )
        return kernels
