"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.errors import ConfigError
from mmjax.layers.mlp import MLP, Activation
from mmjax.layers.norms import LayerNorm
from mmjax.layers.pooling import mean_pool
from mmjax.layers.remat import rematerialised
from mmjax.types import Features


@dataclasses.dataclass(frozen=True)
class ConvNeXtSize:
    """Blocks and channels of each stage."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]


# Liu et al. 2022, section 3.
SIZES = {
    "T": ConvNeXtSize((3, 3, 9, 3), (96, 192, 384, 768)),
    "S": ConvNeXtSize((3, 3, 27, 3), (96, 192, 384, 768)),
    "B": ConvNeXtSize((3, 3, 27, 3), (128, 256, 512, 1024)),
    "L": ConvNeXtSize((3, 3, 27, 3), (192, 384, 768, 1536)),
    "XL": ConvNeXtSize((3, 3, 27, 3), (256, 512, 1024, 2048)),
}

_EPS = 1e-6  # of every normalisation but the last


class ConvNeXt(nn.Module):
    """A linear map of patches, then stages of depthwise convolutions; each but the first halves the grid.

    `Features.tokens` are the last grid, row by row and not normalised; `pooled` is their mean,
    normalised. Rows and columns of pixels that make no whole patch are left out.

    Attributes:
      variant: a published size by name, or 'custom'.
      depths, widths: what differs from the variant, both for 'custom': blocks and channels of each
        stage. The last width is D.
      patch_size: side of a patch of the stem, in pixels.
      activation: within a block.
      layer_scale: initial value of a learned factor per channel on what each block adds; none has no
        factor.
      drop_path: probability that what the last block adds to an example is dropped (Huang et al. 2016,
        arXiv:1603.09382); earlier ones' less.
      eps: added to the variance by the normalisation of `pooled`; the others have 1e-6.
      remat: which activations of a block are recomputed, see `mmjax.layers.remat`.
      dtype: what it computes in.
    """

    variant: Literal["custom", "T", "S", "B", "L", "XL"] = "T"
    depths: list[int] | None = None
    widths: list[int] | None = None
    patch_size: int = 4
    activation: Activation = "gelu"
    layer_scale: float | None = 1e-6
    drop_path: float = 0.0
    eps: float = 1e-6
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
          mask: [B, 1] which images are real.
          train: whether drop path is on.

        Raises:
          ConfigError: where `x` is no batch of images, or too small, or the sizes do not fit together.
        """
        check_rank("convnext", x, "images [B, height, width, C]")
        size = self.size
        real = full_mask(mask, x.shape[0], 1)  # patches do not exist here, only whole images
        smallest = self.patch_size * 2 ** (len(size.widths) - 1)
        if min(x.shape[1:3]) < smallest:
            raise ConfigError(
                f"convnext: got images of {x.shape[1]} x {x.shape[2]} pixels, expected at least "
                f"{smallest} x {smallest}"
            )
        blocks = sum(size.depths)
        x = self._patches("stem", size.widths[0], self.patch_size)(x.astype(self.dtype))
        x = LayerNorm(_EPS, dtype=self.dtype, name="stem_norm")(x)
        # Argument 2 of __call__ (self is 0) is `train`, a Python bool.
        block = rematerialised(ConvNeXtBlock, self.remat, static_argnums=(2,))
        first = 0  # number of the stage's first block
        for stage, (depth, width) in enumerate(zip(size.depths, size.widths, strict=True)):
            if stage:
                x = LayerNorm(_EPS, dtype=self.dtype, name=f"stage_{stage}_norm")(x)
                x = self._patches(f"stage_{stage}_downsample", width, 2)(x)
            for i in range(depth):
                x = block(
                    self.activation,
                    self.layer_scale,
                    drop_path=self.drop_path * (first + i) / max(blocks - 1, 1),
                    dtype=self.dtype,
                    name=f"stage_{stage}_block_{i}",
                )(x, train)
            first += depth
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        token_mask = full_mask(real, *tokens.shape[:2])
        pooled = mean_pool(tokens, token_mask)
        return make_features(tokens, token_mask, LayerNorm(self.eps, dtype=self.dtype, name="norm")(pooled))

    def _patches(self, name, width, patch):
        return nn.Conv(
            width,
            (patch, patch),
            strides=patch,
            padding="VALID",
            kernel_init=nn.initializers.truncated_normal(0.02),
            dtype=self.dtype,
            name=name,
        )

    @property
    def size(self) -> ConvNeXtSize:
        """Depths and widths."""
        given = {"depths": self.depths, "widths": self.widths}
        given = {key: value for key, value in given.items() if value is not None}
        if self.variant == "custom":
            lacking = [key for key in ("depths", "widths") if key not in given]
            if lacking:
                raise ConfigError(f"{lacking[0]}: is missing; variant 'custom' needs depths and widths")
            size = ConvNeXtSize(**given)
        else:
            size = dataclasses.replace(SIZES[self.variant], **given)
        if len(size.depths) != len(size.widths):
            raise ConfigError(
                f"depths: got {len(size.depths)} stages, expected as many as widths, {len(size.widths)}"
            )
        if min(size.depths, default=0) < 1:
            raise ConfigError(f"depths: got {list(size.depths)}, expected at least one block in each stage")
        return size


class ConvNeXtBlock(nn.Module):
    """What a depthwise 7 x 7 convolution, a normalisation and an MLP make of the grid, added to it.

    Attributes:
      activation, layer_scale, dtype: see `ConvNeXt`.
      drop_path: probability that what it adds is dropped, per example.
    """

    activation: Activation
    layer_scale: float | None
    drop_path: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B height width D"], train: bool) -> Float[Array, "B height width D"]:
        width = x.shape[-1]
        y = nn.Conv(
            width,
            (7, 7),
            padding=3,
            feature_group_count=width,
            kernel_init=nn.initializers.truncated_normal(0.02),
            dtype=self.dtype,
            name="depthwise",
        )(x)
        y = LayerNorm(_EPS, dtype=self.dtype, name="norm")(y)
        y = y.reshape(x.shape[0], -1, width)
        y = MLP(4 * width, self.activation, dtype=self.dtype, name="mlp")(y, train).reshape(x.shape)
        if self.layer_scale is not None:
            initial = nn.initializers.constant(self.layer_scale)
            y = y * self.param("layer_scale", initial, (width,), jnp.float32).astype(y.dtype)
        # One draw per example: stochastic depth.
        y = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)(y)
        return x + y
