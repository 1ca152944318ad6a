"""Vision transformer for images of any proportions: NaFlex of SigLIP 2 (Tschannen et al. 2025,
arXiv:2502.14786, section 2.4.2)."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.encoders.transformer import Embedded, TransformerEncoder
from mmjax.layers.pooling import AttentionPool, mean_pool
from mmjax.types import Features


class NaflexViT(TransformerEncoder):
    """Patches of images that keep their proportions, as many as fit, the rest of the row padding.

    One model reads every size and shape of image: the learned grid of positions is interpolated for
    each image (bilinear, smoothed where it becomes smaller), which NaViT (Dehghani et al. 2023,
    arXiv:2307.06304) and FlexiViT (Beyer et al. 2022, arXiv:2212.08013) led to. The shapes are static:
    where a patch stands is an array.

    A stream of it is made by the transforms `resize_to_patches` and `naflex_patches`: '<stream>'
    [B, L, p * p * C], '<stream>_mask' [B, L] and '<stream>_grid' [B, 2], rows and columns of patches.

    Attributes:
      grid_size: rows and columns of the table of positions.
      pooling: 'map' attention pooling, or 'mean' of the patches.

    The other attributes are those of `TransformerEncoder`.
    """

    grid_size: int = 16
    pooling: Literal["map", "mean"] = "map"

    # What an example of the stream is, instead of what its kind says; and which arrays
    # '<stream>_<name>' of the batch it takes besides the mask.
    axes = "[L, p * p * C]"
    further = ("grid",)

    def setup(self):
        settings = self.make_blocks()
        self.patch = nn.Dense(settings.width, dtype=self.dtype)
        self.positions = _GridPositions(self.grid_size, dtype=self.dtype)
        if self.pooling == "map":
            self.pool = AttentionPool(
                settings.heads, settings.mlp_width, self.activation, eps=self.eps, dtype=self.dtype
            )

    def __call__(
        self,
        x: Float[Array, "B L C"],
        mask: Bool[Array, "#B #L"] | None = None,
        *,
        grid: Int[Array, "B 2"] | None = None,
        train: bool = False,
    ) -> Features:
        """Encodes a batch; see `embed`."""
        tokens, token_mask, attention_mask = self.embed(x, mask, train, grid=grid)
        return self.finish(self.run(tokens, attention_mask, train), token_mask)

    def embed(
        self,
        x: Float[Array, "B L C"],
        mask: Bool[Array, "#B #L"] | None,
        train: bool,
        *,
        grid: Int[Array, "B 2"] | None = None,
    ) -> Embedded:
        """What enters the blocks.

        Args:
          x: patches, row by row, the pixels of each row by row with the channels last; normalised.
          mask: which patches are real, or [B, 1] which images are; None is all.
          train: whether dropout is on.
          grid: rows and columns of patches of each image; None takes the real patches for one row.

        Raises:
          ConfigError: where `x` is no batch of patches.
        """
        check_rank("naflex_vit", x, "patches [B, L, p * p * C]")
        hides = mask is not None and mask.shape[1] != 1
        mask = full_mask(mask, *x.shape[:2])
        if grid is None:
            columns = mask.sum(axis=1)
            grid = jnp.stack([jnp.ones_like(columns), columns], axis=1)
        tokens = self.patch(jnp.where(mask[..., None], x, 0).astype(self.dtype))
        tokens = jnp.where(mask[..., None], self.positions(tokens, grid), 0)
        return self.embedding_dropout(tokens, deterministic=not train), mask, mask if hides else None

    def finish(self, tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Features:
        """Features from what leaves the blocks."""
        tokens = self.norm_tokens(tokens)
        pooled = self.pool(tokens, mask) if self.pooling == "map" else mean_pool(tokens, mask)
        return make_features(tokens, mask, self.norm_pooled(pooled))


class _GridPositions(nn.Module):
    """Adds a learned vector per place of a grid, whose size is another for each example."""

    size: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "B L D"], grid: Int[Array, "B 2"]) -> Float[Array, "B L D"]:
        shape = (self.size, self.size, tokens.shape[-1])
        table = self.param("table", nn.initializers.normal(0.02), shape, jnp.float32)
        rows, columns = jnp.maximum(grid[:, :1], 1), jnp.maximum(grid[:, 1:], 1)
        place = jnp.arange(tokens.shape[1])[None]
        # Places behind the grid are padding; their numbers must only be finite.
        row, column = jnp.minimum(place // columns, rows - 1), place % columns
        across = _bilinear_weights(row, rows, self.size)[..., :, None]
        along = _bilinear_weights(column, columns, self.size)[..., None, :]
        weights = (across * along).reshape(*tokens.shape[:2], self.size**2)
        return tokens + (weights @ table.reshape(self.size**2, -1)).astype(self.dtype)


def _bilinear_weights(
    index: Int[Array, "B L"], length: Int[Array, "B 1"], size: int
) -> Float[Array, "B L {size}"]:
    """Weights over `size` samples that give sample `index` of `length` ones.

    Ends are not aligned; where there are fewer samples than before, the triangle is as wide as their
    distance, so that nothing is skipped.
    """
    step = size / length.astype(jnp.float32)
    centre = (index + 0.5) * step
    distance = jnp.abs(jnp.arange(size) + 0.5 - centre[..., None])
    weights = jnp.maximum(1 - distance / jnp.maximum(step, 1.0)[..., None], 0)
    return weights / weights.sum(axis=-1, keepdims=True)
