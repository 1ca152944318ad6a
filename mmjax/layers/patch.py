"""Images as grids of patches (Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.1), videos of tubelets."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.errors import ConfigError


class PatchEmbed(nn.Module):
    """A linear map of each patch.

    The kernel [p, p, C, D] is that of the equal convolution with stride p; as a matrix product it
    runs faster.

    Attributes:
      width: D.
      patch_size: p, the side of a patch in pixels.
      use_bias: whether a learned vector is added.
      dtype: what it computes in.
    """

    width: int
    patch_size: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B height width C"]) -> Float[Array, "B rows columns D"]:
        """Raises ConfigError where the image does not divide into patches."""
        p = self.patch_size
        batch, height, width, channels = image.shape
        if height % p or width % p:
            raise ConfigError(
                f"patch_size: got {p}, expected a divisor of the image's {height} x {width} pixels"
            )
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (p, p, channels, self.width), jnp.float32
        )
        patches = image.astype(self.dtype).reshape(batch, height // p, p, width // p, p, channels)
        patches = patches.swapaxes(2, 3).reshape(batch, height // p, width // p, p * p * channels)
        tokens = patches @ kernel.astype(self.dtype).reshape(p * p * channels, self.width)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
            tokens = tokens + bias.astype(self.dtype)
        return tokens


class TubeletEmbed(nn.Module):
    """A linear map of each tubelet: a patch over some frames (Arnab et al. 2021, 2103.15691, section 3.2).

    The kernel [t, p, p, C, D] is that of the equal convolution with strides (t, p, p); as a matrix
    product it runs faster.

    Attributes:
      width: D.
      tubelet_size: t, the length of a tubelet in frames.
      patch_size: p, its side in pixels.
      dtype: what it computes in.
    """

    width: int
    tubelet_size: int
    patch_size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, video: Float[Array, "B T height width C"]) -> Float[Array, "B moments rows columns D"]:
        """Raises ConfigError where the video does not divide into tubelets."""
        t, p = self.tubelet_size, self.patch_size
        batch, frames, height, width, channels = video.shape
        if frames % t:
            raise ConfigError(f"tubelet_size: got {t}, expected a divisor of the video's {frames} frames")
        if height % p or width % p:
            raise ConfigError(
                f"patch_size: got {p}, expected a divisor of the video's {height} x {width} pixels"
            )
        volume = t * p * p * channels
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (t, p, p, channels, self.width), jnp.float32
        )
        grid = (frames // t, height // p, width // p)
        tubelets = video.astype(self.dtype).reshape(batch, grid[0], t, grid[1], p, grid[2], p, channels)
        tubelets = tubelets.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, *grid, volume)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        return tubelets @ kernel.astype(self.dtype).reshape(volume, self.width) + bias.astype(self.dtype)
