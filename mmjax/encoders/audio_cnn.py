"""A convolutional network over time."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.layers.norms import BatchNorm, LayerNorm
from mmjax.layers.pooling import POOLINGS
from mmjax.types import Features


class AudioCNN(nn.Module):
    """Frames [B, T, C] through strided convolutions; what is left of time are the tokens.

    Padding is set to zero before each convolution, so a sequence gives the same whatever it is padded
    to, and whatever with.

    Attributes:
      widths: channels of each convolution; the last is D.
      kernel: frames a convolution sees, an odd number.
      stride: of each convolution; every one leaves ceil(T / stride) frames.
      norm: 'layer' over the channels of each frame, or 'batch'.
      pooling: over the tokens.
      dropout: rate after each convolution.
      dtype: what it computes in.
    """

    widths: list[int] = field(default_factory=lambda: [64, 128, 256])
    kernel: int = 5
    stride: int = 2
    norm: Literal["layer", "batch"] = "layer"
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
          ConfigError: where `x` is no batch of frames.
        """
        check_rank("audio_cnn", x, "audio frames [B, T, C]")
        mask = full_mask(mask, *x.shape[:2])
        x = x.astype(self.dtype)
        for i, width in enumerate(self.widths):
            x = jnp.where(mask[..., None], x, 0)
            # Output t looks at frames around t * stride, whatever the length.
            side = self.kernel // 2
            x = nn.Conv(
                width,
                (self.kernel,),
                strides=(self.stride,),
                padding=((side, side),),
                use_bias=False,  # the normalisation has one
                dtype=self.dtype,
                name=f"conv_{i}",
            )(x)
            mask = mask[:, :: self.stride]
            if self.norm == "batch":
                x = BatchNorm(dtype=self.dtype, name=f"norm_{i}")(x, mask, train)
            else:
                x = LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x)
            x = nn.relu(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return make_features(x, mask, POOLINGS[self.pooling](x, mask))
