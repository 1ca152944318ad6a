"""Residual networks (He et al. 2015, arXiv:1512.03385)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.errors import ConfigError
from mmjax.layers.mlp import ACTIVATIONS, Activation
from mmjax.layers.norms import BatchNorm
from mmjax.layers.pooling import mean_pool
from mmjax.layers.remat import rematerialised
from mmjax.types import Features

Block = Literal["basic", "bottleneck"]


@dataclasses.dataclass(frozen=True)
class ResNetSize:
    """Kind of block, blocks per stage, channels that each stage puts out."""

    block: Block
    depths: tuple[int, ...]
    widths: tuple[int, ...]


# He et al. 2015, table 1.
SIZES = {
    "18": ResNetSize("basic", (2, 2, 2, 2), (64, 128, 256, 512)),
    "34": ResNetSize("basic", (3, 4, 6, 3), (64, 128, 256, 512)),
    "50": ResNetSize("bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048)),
    "101": ResNetSize("bottleneck", (3, 4, 23, 3), (256, 512, 1024, 2048)),
    "152": ResNetSize("bottleneck", (3, 8, 36, 3), (256, 512, 1024, 2048)),
}


class ResNet(nn.Module):
    """A stem that quarters the grid, then stages of residual blocks; each but the first halves it.

    `Features.tokens` are the last grid, row by row; `pooled` is their mean. A stage halves the grid in
    the 3 x 3 convolution of its first block, which is known as ResNet v1.5 and differs from the paper.

    Attributes:
      variant: a published size by its number of layers, or 'custom'.
      block, depths, widths: what differs from the variant, all three for 'custom': two 3 x 3
        convolutions ('basic') or 1 x 1, 3 x 3, 1 x 1 with a quarter of the channels ('bottleneck');
        blocks per stage; channels that each stage puts out. The last is D.
      stem_width: channels of the stem.
      downsample_in_first_stage: the first stage halves the grid too.
      downsample_in_bottleneck: a bottleneck halves the grid in its first 1 x 1 convolution, as in the
        paper.
      activation: after the stem, and after the sum at the end of a block.
      inner_activation: between the convolutions of a block. In Hugging Face's models it is 'relu'
        whatever the other is.
      norm: 'batch', or 'group' (Wu and He 2018, arXiv:1803.08494).
      groups: most groups that 'group' makes; fewer where the channels do not divide.
      remat: which activations of a block are recomputed, see `mmjax.layers.remat`.
      dtype: what it computes in.
    """

    variant: Literal["custom", "18", "34", "50", "101", "152"] = "50"
    block: Block | None = None
    depths: list[int] | None = None
    widths: list[int] | None = None
    stem_width: int = 64
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    activation: Activation = "relu"
    inner_activation: Activation = "relu"
    norm: Literal["batch", "group"] = "batch"
    groups: int = 32
    remat: Any = False
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
          train: whether batch statistics are those of the batch.

        Raises:
          ConfigError: where `x` is no batch of images, or the sizes do not fit together.
        """
        check_rank("resnet", x, "images [B, height, width, C]")
        size = self.size
        real = full_mask(mask, x.shape[0], 1)  # patches do not exist here, only whole images
        settings = {"norm": self.norm, "groups": self.groups, "dtype": self.dtype}
        x = ConvNorm(self.stem_width, 7, 2, **settings, name="stem")(
            x.astype(self.dtype), real[..., None], train
        )
        x = ACTIVATIONS[self.activation](x)
        # Argument 3 of __call__ (self is 0) is `train`, a Python bool.
        block = rematerialised(ResNetBlock, self.remat, static_argnums=(3,))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, (depth, width) in enumerate(zip(size.depths, size.widths, strict=True)):
            for i in range(depth):
                halves = i == 0 and (stage > 0 or self.downsample_in_first_stage)
                x = block(
                    width,
                    size.block,
                    stride=2 if halves else 1,
                    downsample_in_bottleneck=self.downsample_in_bottleneck,
                    activation=self.activation,
                    inner_activation=self.inner_activation,
                    **settings,
                    name=f"stage_{stage}_block_{i}",
                )(x, real[..., None], train)
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        token_mask = full_mask(real, *tokens.shape[:2])
        return make_features(tokens, token_mask, mean_pool(tokens, token_mask))

    @property
    def size(self) -> ResNetSize:
        """Kind of block, depths and widths."""
        given = {"block": self.block, "depths": self.depths, "widths": self.widths}
        given = {key: value for key, value in given.items() if value is not None}
        if self.variant == "custom":
            lacking = [key for key in ("block", "depths", "widths") if key not in given]
            if lacking:
                raise ConfigError(
                    f"{lacking[0]}: is missing; variant 'custom' needs block, depths and widths"
                )
            size = ResNetSize(**given)
        else:
            size = dataclasses.replace(SIZES[self.variant], **given)
        if len(size.depths) != len(size.widths):
            raise ConfigError(
                f"depths: got {len(size.depths)} stages, expected as many as widths, {len(size.widths)}"
            )
        if min(size.depths, default=0) < 1:
            raise ConfigError(f"depths: got {list(size.depths)}, expected at least one block in each stage")
        if size.block == "bottleneck" and any(width % 4 for width in size.widths):
            raise ConfigError(f"widths: got {list(size.widths)}, expected multiples of 4, for 'bottleneck'")
        return size


class ConvNorm(nn.Module):
    """A convolution without a bias, and its normalisation. See `ResNet` for the attributes."""

    width: int
    kernel: int
    stride: int
    norm: Literal["batch", "group"]
    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B height width C"], real: Bool[Array, "B 1 1"], train: bool
    ) -> Float[Array, "B rows columns D"]:
        x = nn.Conv(
            self.width,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding=self.kernel // 2,
            use_bias=False,  # the normalisation has one
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            dtype=self.dtype,
            name="conv",
        )(x)
        if self.norm == "batch":
            return BatchNorm(dtype=self.dtype, name="norm")(x, real, train)
        groups = math.gcd(self.groups, self.width)
        return nn.GroupNorm(groups, epsilon=1e-5, dtype=self.dtype, name="norm")(x)


class ResNetBlock(nn.Module):
    """Two or three convolutions around a shortcut. See `ResNet` for the attributes."""

    width: int
    block: Block
    stride: int
    downsample_in_bottleneck: bool
    activation: Activation
    inner_activation: Activation
    norm: Literal["batch", "group"]
    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B height width C"], real: Bool[Array, "B 1 1"], train: bool
    ) -> Float[Array, "B rows columns D"]:
        y = x
        for i, (width, kernel, stride) in enumerate(self._convolutions()):
            if i:
                y = ACTIVATIONS[self.inner_activation](y)
            y = self._conv(f"conv_{i + 1}", width, kernel, stride)(y, real, train)
        if x.shape[-1] != self.width or self.stride > 1:
            x = self._conv("shortcut", self.width, 1, self.stride)(x, real, train)
        return ACTIVATIONS[self.activation](x + y)

    def _convolutions(self) -> list[tuple[int, int, int]]:
        """Channels, kernel size and stride of each."""
        if self.block == "basic":
            return [(self.width, 3, self.stride), (self.width, 3, 1)]
        inner = self.width // 4
        first, second = (self.stride, 1) if self.downsample_in_bottleneck else (1, self.stride)
        return [(inner, 1, first), (inner, 3, second), (self.width, 1, 1)]

    def _conv(self, name, width, kernel, stride):
        return ConvNorm(width, kernel, stride, self.norm, self.groups, dtype=self.dtype, name=name)
