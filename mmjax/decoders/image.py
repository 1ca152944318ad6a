"""Images from features, by a stack of upsampling convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.errors import ConfigError
from mmjax.types import Features


class ImageDecoder(nn.Module):
    """The decoder half of a convolutional autoencoder: a small grid, doubled once per stage.

    Attributes:
      height, width: size of the image in pixels; multiples of 2 ** len(filters).
      reads: entry it reads.
      source: 'pooled' maps one vector to the whole first grid; 'tokens' takes the tokens, row by
        row, as the first grid, which needs (height x width) / 4 ** len(filters) of them.
      channels: C.
      filters: channels after each doubling.
      upsample: 'transposed' is a 4x4 convolution with stride 2, transposed (Dumoulin and Visin 2016,
        arXiv:1603.07285, section 4); 'resize' repeats each pixel and applies a 3x3 convolution, which
        leaves no checkerboard (Odena et al. 2016, distill.pub/2016/deconv-checkerboard).
      dtype: what it computes in; the image is float32.
    """

    height: int
    width: int
    reads: str = "fused"
    source: Literal["pooled", "tokens"] = "pooled"
    channels: int = 3
    filters: Sequence[int] = (128, 64, 32)
    upsample: Literal["transposed", "resize"] = "transposed"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: dict[str, Features], *, train: bool = False
    ) -> Float[Array, "B {self.height} {self.width} {self.channels}"]:
        """The image; on the scale of the images it is trained to equal."""
        x = self._first_grid(features[self.reads])
        for i, filters in enumerate(self.filters):
            x = nn.relu(self._double(x, filters, name=f"stages_{i}"))
        return nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="pixels")(x).astype(jnp.float32)

    def _first_grid(self, entry):
        factor = 2 ** len(self.filters)
        if self.height % factor or self.width % factor:
            raise ConfigError(
                f"image_decoder: got {self.height}x{self.width} with {len(self.filters)} filters, which "
                f"double as often; expected multiples of {factor}: change height and width, or filters"
            )
        rows, columns = self.height // factor, self.width // factor
        if self.source == "pooled":
            channels = self.filters[0] if self.filters else self.channels
            x = nn.relu(nn.Dense(rows * columns * channels, dtype=self.dtype, name="grid")(entry.pooled))
            return x.reshape(-1, rows, columns, channels)
        length = entry.tokens.shape[1]
        if length != rows * columns:
            raise ConfigError(
                f"image_decoder: got {length} tokens from '{self.reads}', expected {rows}x{columns}; "
                "change filters, or use source: pooled"
            )
        tokens = jnp.where(entry.mask[:, :, None], entry.tokens, 0)
        return tokens.reshape(-1, rows, columns, tokens.shape[-1])

    def _double(self, x, filters, name):
        if self.upsample == "transposed":
            return nn.ConvTranspose(filters, (4, 4), strides=(2, 2), dtype=self.dtype, name=name)(x)
        x = x.repeat(2, axis=1).repeat(2, axis=2)
        return nn.Conv(filters, (3, 3), dtype=self.dtype, name=name)(x)
