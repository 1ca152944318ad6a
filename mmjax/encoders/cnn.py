"""A plain or residual convolutional network for images."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.layers.norms import BatchNorm
from mmjax.layers.pooling import mean_pool
from mmjax.types import Features


class CNN(nn.Module):
    """Stages of 3 x 3 convolutions; each stage halves the grid.

    `Features.tokens` are the final grid, row by row.

    Attributes:
      widths: channels of each stage; the last is D.
      blocks_per_stage: blocks in each; the first has stride 2.
      residual: a block is two convolutions with a shortcut (He et al. 2015, arXiv:1512.03385, section
        3.3), instead of one without.
      norm: 'group' (Wu and He 2018, arXiv:1803.08494) or 'batch'.
      groups: most groups that 'group' makes; fewer where the channels do not divide.
      pooling: 'mean' of the grid, or 'grid', a linear map of all its positions, which keeps where
        things are; the size of the images is then fixed.
      coordinates: whether each token also has the row and the column of its position, from -1 to 1, as
        two more channels (Santoro et al. 2017, arXiv:1706.01427, section 4); D is then 2 more.
      dropout: rate on the final grid.
      dtype: what it computes in.
    """

    widths: list[int] = field(default_factory=lambda: [64, 128, 256])
    blocks_per_stage: int = 1
    residual: bool = False
    norm: Literal["group", "batch"] = "group"
    groups: int = 8
    pooling: Literal["mean", "grid"] = "mean"
    coordinates: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B height width C"],
        mask: Bool[Array, "#B #L"] | None = None,
        *,
        train: bool = False,
    ) -> Features:
        """Encodes images.

        Args:
          x: images, normalised.
          mask: [B, 1] which images are real; those that are not count in no batch statistic.
          train: whether dropout is on and batch statistics are those of the batch.

        Raises:
          ConfigError: where `x` is no batch of images.
        """
        check_rank("cnn", x, "images [B, height, width, C]")
        real = full_mask(mask, x.shape[0], 1)  # patches do not exist here, only whole images
        x = x.astype(self.dtype)
        for stage, width in enumerate(self.widths):
            for i in range(self.blocks_per_stage):
                x = ConvBlock(
                    width,
                    stride=1 if i else 2,
                    residual=self.residual,
                    norm=self.norm,
                    groups=self.groups,
                    dtype=self.dtype,
                    name=f"stage_{stage}_block_{i}",
                )(x, real[:, :, None], train)
        if self.coordinates:
            x = jnp.concatenate([x, _coordinates(x)], axis=-1)
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        tokens = nn.Dropout(self.dropout, deterministic=not train)(tokens)
        mask = full_mask(real, *tokens.shape[:2])
        if self.pooling == "mean":
            return make_features(tokens, mask, mean_pool(tokens, mask))
        pooled = nn.Dense(x.shape[-1], dtype=self.dtype, name="grid")(tokens.reshape(x.shape[0], -1))
        return make_features(tokens, mask, pooled)


def _coordinates(x: Float[Array, "B rows columns D"]) -> Float[Array, "B rows columns 2"]:
    """The row and the column of every position, from -1 to 1."""
    rows, columns = (jnp.linspace(-1.0, 1.0, n, dtype=x.dtype) for n in x.shape[1:3])
    grid = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), axis=-1)
    return jnp.broadcast_to(grid, (*x.shape[:3], 2))


class ConvBlock(nn.Module):
    """Convolution, normalisation, ReLU; twice and around a shortcut where residual. See `CNN`."""

    width: int
    stride: int
    residual: bool
    norm: Literal["group", "batch"]
    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B height width C"], real: Bool[Array, "B 1 1"], train: bool
    ) -> Float[Array, "B rows columns D"]:
        y = nn.relu(self._norm("norm_1", self._conv("conv_1", x, 3, self.stride), real, train))
        if not self.residual:
            return y
        y = self._norm("norm_2", self._conv("conv_2", y, 3, 1), real, train)
        if x.shape != y.shape:
            x = self._norm("shortcut_norm", self._conv("shortcut", x, 1, self.stride), real, train)
        return nn.relu(x + y)

    def _conv(self, name, x, kernel, stride):
        return nn.Conv(
            self.width,
            (kernel, kernel),
            strides=stride,
            padding=kernel // 2,
            use_bias=False,  # the normalisation has one
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
            name=name,
        )(x)

    def _norm(self, name, x, real, train):
        if self.norm == "batch":
            return BatchNorm(dtype=self.dtype, name=name)(x, real, train)
        groups = math.gcd(self.groups, self.width)
        return nn.GroupNorm(groups, epsilon=1e-5, dtype=self.dtype, name=name)(x)
