"""Video as a sequence of images."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.components import component
from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.layers.pooling import mean_pool
from mmjax.layers.position import sinusoids
from mmjax.layers.transformer import BlockSettings, Transformer
from mmjax.types import Features


class FrameWise(nn.Module):
    """Each frame through an image encoder, its pooled vector a token of the video.

    Attributes:
      image: the image encoder.
      temporal: 'mean' over the frames, or a 'transformer' over them and then the mean (the factorised
        encoder of ViViT, Arnab et al. 2021, arXiv:2103.15691, section 3.3).
      depth, heads: of the temporal transformer.
      dropout: rate in the temporal transformer.
      remat: which activations of its blocks are recomputed, see `mmjax.layers.remat`.
      scan: its blocks as one, scanned over stacked parameters, see `transformer_blocks`.
      dtype: what it computes in.
    """

    image: component("encoders")
    temporal: Literal["mean", "transformer"] = "mean"
    depth: int = 2
    heads: int = 4
    dropout: float = 0.0
    remat: Any = False
    scan: Any = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T height width C"],
        mask: Bool[Array, "#B #T"] | None = None,
        *,
        train: bool = False,
    ) -> Features:
        """Encodes videos.

        Args:
          x: frames, normalised.
          mask: which frames are real; None is all.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` is no batch of videos.
        """
        check_rank("frame_wise", x, "videos [B, T, height, width, C]")
        batch, frames = x.shape[:2]
        token_mask = full_mask(mask, batch, frames)
        real = None if mask is None else token_mask.reshape(batch * frames, 1)
        images = x.reshape(batch * frames, *x.shape[2:])
        tokens = self.image(images, real, train=train).pooled.reshape(batch, frames, -1)
        if self.temporal == "transformer":
            tokens = tokens + jnp.asarray(sinusoids(*tokens.shape[1:]), tokens.dtype)
            settings = BlockSettings(tokens.shape[-1], self.heads, dropout=self.dropout)
            transformer = Transformer(
                self.depth,
                settings,
                remat=self.remat,
                scan=self.scan,
                dtype=self.dtype,
                name="temporal_transformer",
            )
            tokens = transformer(tokens, None if mask is None else token_mask, train)
        return make_features(tokens, token_mask, mean_pool(tokens, token_mask))
