"""Vision Transformer (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import Variant, check_rank, full_mask, make_features, transformer_size
from mmjax.layers.mlp import Activation
from mmjax.layers.patch import PatchEmbed
from mmjax.layers.pooling import AttentionPool, mean_pool
from mmjax.layers.position import LearnedPositions2D, sinusoids_2d
from mmjax.layers.transformer import BlockSettings, transformer_blocks
from mmjax.types import Features


class ViT(nn.Module):
    """Images as sequences of patches.

    `Features.tokens` are the patches, row by row; the class token and registers are not among them.
    A learned table has no entry for the class token: a position added to a learned vector is no
    further parameter.

    Attributes:
      variant: a size by name, see `mmjax.encoders.common.SIZES`.
      width, depth, heads, mlp_width: what differs from the variant; all but the last for 'custom'.
      patch_size: side of a patch, in pixels.
      pooling: 'cls' a class token, 'mean' of the patches, 'map' attention pooling.
      registers: number of learned tokens that are thrown away (Darcet et al. 2023, arXiv:2309.16588).
      position: 'learned' per patch (interpolated for another image size), or fixed 'sincos2d'.
      dropout: rate of the embedding, attention and MLP outputs.
      drop_path: probability that the last block's branches are dropped; earlier ones' less.
      activation, eps, layer_scale: see `mmjax.layers.transformer.BlockSettings`.
      patch_bias, pre_norm: whether the patch map has a bias, and a normalisation comes before the
        blocks (CLIP has only the latter).
      remat: recompute the blocks' activations in the backward pass.
      dtype: what it computes in.
    """

    variant: Variant = "S"
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    mlp_width: int | None = None
    patch_size: int = 16
    pooling: Literal["cls", "mean", "map"] = "cls"
    registers: int = 0
    position: Literal["learned", "sincos2d"] = "learned"
    dropout: float = 0.0
    drop_path: float = 0.0
    activation: Activation = "gelu"
    eps: float = 1e-6
    layer_scale: float | None = None
    patch_bias: bool = True
    pre_norm: bool = False
    remat: Any = False
    dtype: Any = jnp.float32

    def setup(self):
        size = transformer_size(self.variant, self.width, self.depth, self.heads, self.mlp_width)
        settings = BlockSettings(
            width=size.width,
            heads=size.heads,
            mlp_width=size.mlp_width,
            activation=self.activation,
            eps=self.eps,
            layer_scale=self.layer_scale,
            dropout=self.dropout,
        )
        self.patch = PatchEmbed(size.width, self.patch_size, use_bias=self.patch_bias, dtype=self.dtype)
        if self.position == "learned":
            self.positions = LearnedPositions2D(dtype=self.dtype)
        # Class token and registers stand before the patches.
        normal = nn.initializers.normal(0.02)
        if self.pooling == "cls":
            self.cls = self.param("cls", normal, (1, size.width), jnp.float32)
        if self.registers:
            self.register = self.param("registers", normal, (self.registers, size.width), jnp.float32)
        self.embedding_dropout = nn.Dropout(self.dropout)
        if self.pre_norm:
            self.embedding_norm = settings.make_norm(self.dtype)
        self.blocks = transformer_blocks(
            size.depth, settings, drop_path=self.drop_path, remat=self.remat, dtype=self.dtype
        )
        self.norm = settings.make_norm(self.dtype)
        if self.pooling == "map":
            self.pool = AttentionPool(
                size.heads, size.mlp_width, self.activation, eps=self.eps, dtype=self.dtype
            )

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
          mask: which patches are real, row by row, or [B, 1] which images are; None is all.
          train: whether dropout and drop path are on.

        Raises:
          ConfigError: where `x` is no batch of images, or does not divide into patches.
        """
        tokens, token_mask = self.embed(x, mask, train)
        # Rows do not see each other: that a whole image is missing needs no mask in attention.
        attention_mask = None if mask is None or mask.shape[1] == 1 else token_mask
        for block in self.blocks:
            tokens = block(tokens, attention_mask, train)
        return self.finish(tokens, token_mask)

    def embed(
        self, x: Float[Array, "B height width C"], mask: Bool[Array, "#B #L"] | None, train: bool
    ) -> tuple[Float[Array, "B PL D"], Bool[Array, "B PL"]]:
        """What enters the blocks: class token and registers, always real, then the patches."""
        check_rank("vit", x, "images [B, height, width, C]")
        grid = self.patch(x)
        batch, rows, columns, width = grid.shape
        if self.position == "learned":
            grid = self.positions(grid)
        else:
            grid = grid + jnp.asarray(sinusoids_2d(rows, columns, width), self.dtype)
        mask = full_mask(mask, batch, rows * columns)
        tokens = jnp.where(mask[..., None], grid.reshape(batch, rows * columns, width), 0)
        prefix = self._prefix()
        if prefix:
            prefix = jnp.concatenate(prefix).astype(self.dtype)
            prefix = jnp.broadcast_to(prefix, (batch, *prefix.shape))
            tokens = jnp.concatenate([prefix, tokens], axis=1)
            mask = jnp.pad(mask, ((0, 0), (prefix.shape[1], 0)), constant_values=True)
        tokens = self.embedding_dropout(tokens, deterministic=not train)
        if self.pre_norm:
            tokens = self.embedding_norm(tokens)
        return tokens, mask

    def finish(self, tokens: Float[Array, "B PL D"], mask: Bool[Array, "B PL"]) -> Features:
        """Features from what leaves the blocks."""
        tokens = self.norm(tokens)
        first = sum(len(vectors) for vectors in self._prefix())
        patches, mask = tokens[:, first:], mask[:, first:]
        if self.pooling == "cls":
            pooled = tokens[:, 0]
        else:
            pooled = mean_pool(patches, mask) if self.pooling == "mean" else self.pool(patches, mask)
        return make_features(patches, mask, pooled)

    def _prefix(self):
        return ([self.cls] if self.pooling == "cls" else []) + ([self.register] if self.registers else [])
