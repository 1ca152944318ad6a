"""Position embeddings: learned tables and fixed sinusoids, in one and two dimensions."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mmjax.errors import ConfigError


def sinusoids(length: int, width: int, max_wavelength: float = 10_000.0) -> Float[np.ndarray, "L D"]:
    """Fixed positions of a sequence (Vaswani et al. 2017, arXiv:1706.03762, section 3.5).

    The first half of the channels are sines, the second half cosines of the same angles.

    Raises:
      ConfigError: where `width` is odd.
    """
    if width % 2:
        raise ConfigError(f"width: got {width}, expected an even number, for sinusoidal positions")
    return _sinusoids(np.arange(length), width, max_wavelength).astype(np.float32)


def sinusoids_2d(
    height: int, width: int, channels: int, max_wavelength: float = 10_000.0
) -> Float[np.ndarray, "height width D"]:
    """Fixed positions of a grid: half of the channels for the row, half for the column.

    As in MoCo v3 (Chen et al. 2021, arXiv:2104.02057, section 5).

    Raises:
      ConfigError: where `channels` does not divide by 4.
    """
    if channels % 4:
        raise ConfigError(f"width: got {channels}, expected a multiple of 4, for position 'sincos2d'")
    rows = _sinusoids(np.arange(height), channels // 2, max_wavelength)[:, None]
    columns = _sinusoids(np.arange(width), channels // 2, max_wavelength)[None]
    grid = (height, width, channels // 2)
    both = [np.broadcast_to(rows, grid), np.broadcast_to(columns, grid)]
    return np.concatenate(both, axis=-1).astype(np.float32)


def _sinusoids(positions, width, max_wavelength):
    frequencies = max_wavelength ** -(np.arange(width // 2) / (width // 2))
    angles = positions[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


def resize_positions(
    table: Float[Array, "h w D"], height: int, width: int
) -> Float[Array, "{height} {width} D"]:
    """A learned grid of positions, interpolated for another grid (bicubic, coefficient -0.75).

    Corners are not aligned and nothing is smoothed, as in PyTorch's `interpolate`, with which
    published ViT and DINOv2 weights are used at other image sizes.
    """
    rows = jnp.asarray(_cubic_matrix(table.shape[0], height))
    columns = jnp.asarray(_cubic_matrix(table.shape[1], width))
    return jnp.einsum("ip,jq,pqd->ijd", rows, columns, table.astype(jnp.float32))


def _cubic_matrix(old: int, new: int) -> np.ndarray:
    """[new, old] weights of cubic convolution (Keys 1981) from `old` samples to `new` ones."""
    a = -0.75
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            d = abs(centre - tap)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[i, min(max(tap, 0), old - 1)] += near if d <= 1 else far if d < 2 else 0.0
    return matrix.astype(np.float32)


class LearnedPositions(nn.Module):
    """Adds a learned vector per position of a sequence.

    Attributes:
      max_length: rows of the table.
      dtype: of the result.
    """

    max_length: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B L D"], start: Int[Array, ""] | int = 0
    ) -> Float[Array, "B L D"]:
        """Adds the positions from `start` on (as when decoding goes on).

        Raises:
          ConfigError: where there are more tokens than positions.
        """
        length, width = tokens.shape[1:]
        if length > self.max_length:
            raise ConfigError(
                f"max_length: is {self.max_length}, got {length} tokens; raise it, or cut the sequence"
            )
        init = nn.initializers.normal(0.02)
        table = self.param("table", init, (self.max_length, width), jnp.float32)
        positions = jax.lax.dynamic_slice_in_dim(table, start, length)
        return tokens + positions.astype(self.dtype)


class LearnedPositions2D(nn.Module):
    """Adds a learned vector per place of a grid.

    The table has the size of the grid it was initialised with; for any other grid it is
    interpolated, see `resize_positions`.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, grid: Float[Array, "B height width D"]) -> Float[Array, "B height width D"]:
        _, height, width, channels = grid.shape
        if self.has_variable("params", "table"):
            table = self.get_variable("params", "table")
        else:
            init = nn.initializers.normal(0.02)
            table = self.param("table", init, (height, width, channels), jnp.float32)
        if table.shape[:2] != (height, width):
            table = resize_positions(table, height, width)
        return grid + table.astype(self.dtype)
