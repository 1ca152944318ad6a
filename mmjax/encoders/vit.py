"""Vision Transformer (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.encoders.transformer import Embedded, TransformerEncoder
from mmjax.layers.patch import PatchEmbed
from mmjax.layers.pooling import AttentionPool, Pooler, mean_pool
from mmjax.layers.position import LearnedPositions2D, sinusoids_2d
from mmjax.types import Features


class ViT(TransformerEncoder):
    """Images as sequences of patches.

    By its settings it is also the image encoder of CLIP (`pre_norm`, no `patch_bias`, 'quick_gelu',
    `final_norm` 'pooled'), of SigLIP (`pooling` 'map', 'gelu_tanh'), of DINOv2 (`layer_scale`,
    `registers`, patches of 14 pixels) and of a masked autoencoder.

    `Features.tokens` are the patches, row by row; the class token and registers are not among them.
    A learned table has no entry for the class token: a position added to a learned vector is no
    further parameter.

    Attributes:
      patch_size: side of a patch, in pixels.
      left_over: pixels on the right and below that the images it was made for have beyond whole patches.
        Where it is not 0, such pixels of any image are left out, as by a convolution; where it is, an
        image that has some is an error.
      pooling: 'cls' a class token, 'mean' of the patches, 'map' attention pooling.
      registers: number of learned tokens that are thrown away (Darcet et al. 2023, arXiv:2309.16588).
      position: 'learned' per patch (interpolated for another image size), or fixed 'sincos2d'.
      antialias: whether a learned grid is smoothed when it is interpolated for a smaller one.
      patch_bias, pre_norm: whether the patch map has a bias, and a normalisation comes before the
        blocks (CLIP has only the latter).
      pooler: a linear layer and tanh on the pooled vector.

    The other attributes are those of `TransformerEncoder`.
    """

    patch_size: int = 16
    left_over: int = 0
    pooling: Literal["cls", "mean", "map"] = "cls"
    registers: int = 0
    position: Literal["learned", "sincos2d"] = "learned"
    antialias: bool = False
    patch_bias: bool = True
    pre_norm: bool = False
    pooler: bool = False

    def setup(self):
        settings = self.make_blocks()
        width = settings.width
        self.patch = PatchEmbed(width, self.patch_size, use_bias=self.patch_bias, dtype=self.dtype)
        if self.position == "learned":
            self.positions = LearnedPositions2D(antialias=self.antialias, dtype=self.dtype)
        # Class token and registers stand before the patches.
        normal = nn.initializers.normal(0.02)
        if self.pooling == "cls":
            self.cls = self.param("cls", normal, (1, width), jnp.float32)
        if self.registers:
            self.register = self.param("registers", normal, (self.registers, width), jnp.float32)
        if self.pre_norm:
            self.embedding_norm = settings.make_norm(self.dtype)
        if self.pooling == "map":
            self.pool = AttentionPool(
                settings.heads, settings.mlp_width, self.activation, eps=self.eps, dtype=self.dtype
            )
        if self.pooler:
            self.pooled_layer = Pooler(dtype=self.dtype, name="pooler")

    def embed(
        self, x: Float[Array, "B height width C"], mask: Bool[Array, "#B #L"] | None, train: bool
    ) -> Embedded:
        """What enters the blocks: class token and registers, always real, then the patches.

        Args:
          x: images, normalised.
          mask: which patches are real, row by row, or [B, 1] which images are; None is all.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` is no batch of images, or does not divide into patches.
        """
        check_rank("vit", x, "images [B, height, width, C]")
        if self.left_over:
            height, width = (side - side % self.patch_size for side in x.shape[1:3])
            x = x[:, :height, :width]
        grid = self.patch(x)
        batch, rows, columns, width = grid.shape
        if self.position == "learned":
            grid = self.positions(grid)
        else:
            grid = grid + jnp.asarray(sinusoids_2d(rows, columns, width), self.dtype)
        # Rows do not see each other: that a whole image is missing needs no mask in attention.
        every_patch_real = mask is None or mask.shape[1] == 1
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
        return tokens, mask, None if every_patch_real else mask

    def finish(self, tokens: Float[Array, "B PL D"], mask: Bool[Array, "B PL"]) -> Features:
        """Features from what leaves the blocks."""
        tokens = self.norm_tokens(tokens)
        first = sum(len(vectors) for vectors in self._prefix())
        patches, mask = tokens[:, first:], mask[:, first:]
        if self.pooling == "cls":
            pooled = tokens[:, 0]
        else:
            pooled = mean_pool(patches, mask) if self.pooling == "mean" else self.pool(patches, mask)
        pooled = self.norm_pooled(pooled)
        if self.pooler:
            pooled = self.pooled_layer(pooled)
        return make_features(patches, mask, pooled)

    def _prefix(self):
        return ([self.cls] if self.pooling == "cls" else []) + ([self.register] if self.registers else [])
