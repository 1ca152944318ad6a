"""Attention in shifted windows of a grid (Swin Transformer, Liu et al. 2021, arXiv:2103.14030)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from mmjax.errors import ConfigError
from mmjax.layers.attention import MultiHeadAttention
from mmjax.layers.mlp import MLP, Activation
from mmjax.layers.norms import LayerNorm


class SwinBlock(nn.Module):
    """Self-attention inside windows, then an MLP; each is normalised first and adds to the grid.

    Every other block of a stage is shifted by half a window (section 3.2 of the paper): the grid is
    rolled, and what meets over its edge does not see each other. Scores get a learned number per head
    and relative position.

    Attributes:
      heads: H.
      window: side of a window, in places of the grid.
      shifted: whether windows are shifted; one that is the whole grid never is.
      mlp_ratio: MLP width over D.
      activation: of the MLP.
      qkv_bias: whether queries, keys and values have biases.
      eps: added to the variance by the normalisations.
      attention_dropout, dropout: rate of what attention, and the MLP, put out.
      drop_path: probability that what either puts out is dropped, per example.
      dtype: what it computes in.
    """

    heads: int
    window: int
    shifted: bool = False
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    qkv_bias: bool = True
    eps: float = 1e-5
    attention_dropout: float = 0.0
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        grid: Float[Array, "B height width D"],
        mask: Bool[Array, "B height width"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B height width D"]:
        """One block.

        Args:
          grid: what goes through.
          mask: which places are real, and so seen; None is all.
          train: whether dropout and drop path are on.

        Raises:
          ConfigError: where the grid does not divide into windows.
        """
        batch, height, width, channels = grid.shape
        w = self.window
        if height % w or width % w:
            raise ConfigError(f"window: got {w}, expected a divisor of the grid of {height} x {width}")
        shift = w // 2 if self.shifted and min(height, width) > w else 0

        x = LayerNorm(self.eps, dtype=self.dtype, name="attention_norm")(grid)
        x = to_windows(jnp.roll(x, (-shift, -shift), (1, 2)), w)
        attended = MultiHeadAttention(
            channels,
            self.heads,
            biased=("query", "key", "value", "out") if self.qkv_bias else ("out",),
            dtype=self.dtype,
            name="attention",
        )(x, mask=self._visible(mask, batch, height, width, shift), bias=self._position_bias())
        attended = jnp.roll(from_windows(attended, height, width), (shift, shift), (1, 2))
        grid = grid + self._drop(attended, self.attention_dropout, train)

        x = LayerNorm(self.eps, dtype=self.dtype, name="mlp_norm")(grid)
        mlp = MLP(int(self.mlp_ratio * channels), self.activation, dtype=self.dtype, name="mlp")
        x = mlp(x.reshape(batch, height * width, channels), train).reshape(grid.shape)
        return grid + self._drop(x, self.dropout, train)

    def _position_bias(self) -> Float[Array, "1 H L L"]:
        table = self.param(
            "position_bias",
            nn.initializers.truncated_normal(0.02),
            ((2 * self.window - 1) ** 2, self.heads),
            jnp.float32,
        )
        return jnp.transpose(table[relative_positions(self.window)], (2, 0, 1))[None]

    def _visible(self, mask, batch, height, width, shift) -> Bool[Array, "BW 1 _ L"] | None:
        """Which place of a window sees which, [B * windows, 1, L or 1, L]."""
        visible = None
        if shift:
            # Along each axis the shifted grid has up to two stretches that do not belong together.
            stretch = [(np.arange(size) >= size - shift).astype(int) for size in (height, width)]
            region = (stretch[0][:, None] * 2 + stretch[1])[None, ..., None]
            region = to_windows(region, self.window)[..., 0]  # [windows, L]
            visible = region[:, None, :, None] == region[:, None, None, :]
            visible = jnp.tile(visible, (batch, 1, 1, 1))
        if mask is not None:
            real = to_windows(jnp.roll(mask, (-shift, -shift), (1, 2))[..., None], self.window)[..., 0]
            real = real[:, None, None, :]
            visible = real if visible is None else visible & real
        return visible

    def _drop(self, x, rate, train):
        x = nn.Dropout(rate, deterministic=not train)(x)
        return nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)(x)


class PatchMerging(nn.Module):
    """Each 2 x 2 places become one of twice the width: normalised together, then a linear map.

    The four stand in the order (0, 0), (1, 0), (0, 1), (1, 1) of (row, column), as in the published
    weights.

    Attributes:
      eps: added to the variance by the normalisation.
      dtype: what it computes in.
    """

    eps: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, grid: Float[Array, "B height width D"]) -> Float[Array, "B rows columns D2"]:
        """Raises ConfigError where the grid has an odd side."""
        _, height, width, channels = grid.shape
        if height % 2 or width % 2:
            raise ConfigError(f"patch merging: got a grid of {height} x {width}, expected even sides")
        four = [grid[:, row::2, column::2] for column in range(2) for row in range(2)]
        x = LayerNorm(self.eps, dtype=self.dtype, name="norm")(jnp.concatenate(four, axis=-1))
        return nn.Dense(2 * channels, use_bias=False, dtype=self.dtype, name="reduce")(x)


def to_windows(
    grid: Shaped[Array | np.ndarray, "B height width D"], window: int
) -> Shaped[Array | np.ndarray, "BW L D"]:
    """The grid's windows one after the other, example by example, L = window^2 places in each."""
    batch, height, width, channels = grid.shape
    grid = grid.reshape(batch, height // window, window, width // window, window, channels)
    return grid.swapaxes(2, 3).reshape(-1, window * window, channels)


def from_windows(
    windows: Shaped[Array, "BW L D"], height: int, width: int
) -> Shaped[Array, "B {height} {width} D"]:
    """The inverse of `to_windows`."""
    channels = windows.shape[-1]
    window = round(windows.shape[1] ** 0.5)
    grid = windows.reshape(-1, height // window, width // window, window, window, channels)
    return grid.swapaxes(2, 3).reshape(-1, height, width, channels)


def relative_positions(window: int) -> Int[np.ndarray, "L L"]:
    """For a query and a key of a window, the row of the table of their relative position.

    That is (dy + window - 1) * (2 window - 1) + dx + window - 1, where (dy, dx) leads from key to query.
    """
    y, x = np.divmod(np.arange(window * window), window)
    dy, dx = y[:, None] - y + window - 1, x[:, None] - x + window - 1
    return dy * (2 * window - 1) + dx
