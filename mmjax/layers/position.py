"""Positions: learned tables and fixed sinusoids in up to three dimensions, rotary and relative ones."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mmjax.errors import ConfigError


def sinusoids(
    length: int, width: int, max_wavelength: float = 10_000.0, *, interleaved: bool = False
) -> Float[np.ndarray, "L D"]:
    """Fixed positions of a sequence (Vaswani et al. 2017, arXiv:1706.03762, section 3.5).

    The first half of the channels are sines, the second half cosines of the same angles; where
    `interleaved`, each sine stands before its cosine, as in that paper.

    Raises:
      ConfigError: where `width` is odd.
    """
    if width % 2:
        raise ConfigError(f"width: got {width}, expected an even number, for sinusoidal positions")
    table = _sinusoids(np.arange(length), width, max_wavelength).astype(np.float32)
    if interleaved:
        table = table.reshape(length, 2, width // 2).swapaxes(1, 2).reshape(length, width)
    return table


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


def rotate(
    heads: Float[Array, "B L H K"],
    positions: Int[Array, "#B L"] | None = None,
    max_wavelength: float = 10_000.0,
) -> Float[Array, "B L H K"]:
    """Rotary positions (Su et al. 2021, arXiv:2104.09864, section 3.2.2).

    Channel pair (i, i + K/2) is turned by position * max_wavelength^(-2i/K), so that the dot product
    of a query and a key depends on where they stand to each other only.

    Args:
      heads: queries or keys.
      positions: of each token; None counts from 0.
      max_wavelength: 2 pi times it is the longest period, in tokens.

    Raises:
      ConfigError: where K is odd.
    """
    length, width = heads.shape[1], heads.shape[-1]
    if width % 2:
        raise ConfigError(f"head_width: got {width}, expected an even number, for rotary positions")
    if positions is None:
        positions = jnp.arange(length)[None]
    frequencies = max_wavelength ** -(np.arange(width // 2) / (width // 2))
    angles = positions[:, :, None, None] * jnp.asarray(frequencies, jnp.float32)
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(heads.dtype)


class RelativeBias(nn.Module):
    """A learned score per head and distance (Raffel et al. 2019, arXiv:1910.10683, section 2.1).

    Small distances have a score each, larger ones share logarithmically wider buckets up to
    `max_distance`, and all beyond share the last.

    Attributes:
      heads: H.
      buckets: number of scores per head, half of them for keys that come later.
      max_distance: in tokens.
    """

    heads: int
    buckets: int = 32
    max_distance: int = 128

    @nn.compact
    def __call__(self, query_length: int, key_length: int) -> Float[Array, "1 H Lq Lk"]:
        """What is added to the scores of attention."""
        init = nn.initializers.normal(0.02)
        table = self.param("table", init, (self.buckets, self.heads), jnp.float32)
        distance = np.arange(key_length)[None] - np.arange(query_length)[:, None]
        return jnp.transpose(table[self._bucket(distance)], (2, 0, 1))[None]

    def _bucket(self, distance: np.ndarray) -> np.ndarray:
        half = self.buckets // 2
        exact = half // 2
        away = np.abs(distance)
        wider = np.log(np.maximum(away, 1) / exact) / np.log(self.max_distance / exact) * (half - exact)
        bucket = np.where(away < exact, away, np.minimum(exact + wider.astype(int), half - 1))
        return bucket + half * (distance > 0)


def resize_positions(
    table: Float[Array, "h w D"], height: int, width: int, *, antialias: bool = False
) -> Float[Array, "{height} {width} D"]:
    """A learned grid of positions, interpolated for another grid (bicubic).

    Corners are not aligned, as in PyTorch's `interpolate`, with which published ViT and DINOv2 weights
    are used at other image sizes. Like there, the coefficient is -0.75 without smoothing, and -0.5
    with it.

    Args:
      table: the grid.
      height, width: of the new grid.
      antialias: smooth before samples are left out.
    """
    table = table.astype(jnp.float32)
    if antialias:
        return jax.image.resize(table, (height, width, table.shape[-1]), "cubic", antialias=True)
    rows = jnp.asarray(_cubic_matrix(table.shape[0], height))
    columns = jnp.asarray(_cubic_matrix(table.shape[1], width))
    return jnp.einsum("ip,jq,pqd->ijd", rows, columns, table)


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
    interpolated, see `resize_positions`, smoothed first where `antialias` is set.
    """

    antialias: bool = False
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
            table = resize_positions(table, height, width, antialias=self.antialias)
        return grid + table.astype(self.dtype)


class LearnedPositionsOverTime(nn.Module):
    """Adds a learned vector per moment and place: of a spectrogram's patches, of a video's tubelets.

    What is shorter than the table takes its first moments, so that the length of padding changes
    nothing; for what is longer, the table is interpolated over time (linear). The places are those it
    was initialised with; for others it is interpolated as well (a line of places linear, a grid
    bicubic, see `resize_positions`).

    Attributes:
      moments: rows of the table.
      dtype: of the result.
    """

    moments: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T *places D"]) -> Float[Array, "B T *places D"]:
        _, length, *places, width = x.shape
        if self.has_variable("params", "table"):
            table = self.get_variable("params", "table")
        else:
            shape = (self.moments, *places, width)
            table = self.param("table", nn.initializers.normal(0.02), shape, jnp.float32)
        if table.shape[1:-1] != tuple(places):
            if len(places) == 2:
                table = jax.vmap(lambda grid: resize_positions(grid, *places))(table)
            else:
                table = _resize_linear(table, (self.moments, *places, width))
        if length > self.moments:
            table = _resize_linear(table, (length, *places, width))
        return x + table[:length].astype(self.dtype)


def _resize_linear(table, shape):
    return jax.image.resize(table.astype(jnp.float32), shape, "linear", antialias=False)
