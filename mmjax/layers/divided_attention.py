"""Divided attention over time and space (TimeSformer, Bertasius et al. 2021, arXiv:2102.05095, section 3)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.errors import ConfigError
from mmjax.layers.attention import MultiHeadAttention, token_mask
from mmjax.layers.transformer import DropRate, Residual, TransformerBlock


class DividedBlock(TransformerBlock):
    """Each patch attends to its place in all frames, then to all patches of its frame; then the MLP.

    The tokens are a class token and `frames` frames of equally many patches. Attention over time leaves
    the class token out and ends in one more linear layer. In attention over space each frame has a copy
    of the class token, and what these are given is averaged over the real frames.

    Attributes:
      settings, dtype: see `TransformerBlock`; of attention over time and over space alike.
      frames: T.
    """

    frames: int = 1

    def setup(self):
        super().setup()
        s = self.settings
        self.temporal_norm = s.make_norm(self.dtype)
        self.temporal_attention = MultiHeadAttention(
            s.width, s.heads, s.head_width, s.attention_biases, dtype=self.dtype
        )
        self.temporal_dense = nn.Dense(s.width, dtype=self.dtype)
        self.temporal_residual = Residual(s)

    def __call__(
        self,
        tokens: Float[Array, "B L D"],
        mask: Bool[Array, "B L"] | None = None,
        train: bool = False,
        context: None = None,
        context_mask: None = None,
        bias: None = None,
        drop_path: DropRate = None,
    ) -> Float[Array, "B L D"]:
        """One layer.

        Args:
          tokens: the class token, then the patches frame by frame.
          mask: which are real, the patches of a frame alike; None is all.
          train: whether dropout and drop path are on (rng 'dropout').
          context, context_mask, bias: none; they are there since all blocks are called alike.
          drop_path: probability that a branch is dropped in training, per example.

        Raises:
          ConfigError: where the tokens are no class token and equal frames.
        """
        batch, length, width = tokens.shape
        frames, places = self.frames, (length - 1) // self.frames
        if length != 1 + frames * places:
            raise ConfigError(
                f"timesformer: got {length} tokens in a block, expected a class token and {frames} frames of "
                "equally many patches; a fusion that adds tokens of its own needs another encoder"
            )
        real = None if mask is None else mask[:, 1:].reshape(batch, frames, places)
        cls, patches = tokens[:, :1], tokens[:, 1:]

        moments = self.temporal_norm(patches).reshape(batch, frames, places, width)
        moments = moments.swapaxes(1, 2).reshape(batch * places, frames, width)
        if real is not None:
            visible = token_mask(real.swapaxes(1, 2).reshape(batch * places, frames))
        branch = self.temporal_attention(moments, mask=None if real is None else visible)
        branch = self.temporal_dense(branch).reshape(batch, places, frames, width)
        branch = branch.swapaxes(1, 2).reshape(batch, length - 1, width)
        patches = self.temporal_residual(patches, branch, train, drop_path)

        tokens = jnp.concatenate([cls, patches], axis=1)
        normed = self.attention_norm(tokens)
        # Patches of a frame that is not real see each other only: no mask is needed.
        images = jnp.concatenate(
            [
                jnp.broadcast_to(normed[:, None, :1], (batch, frames, 1, width)),
                normed[:, 1:].reshape(batch, frames, places, width),
            ],
            axis=2,
        )
        branch = self.attention(images.reshape(batch * frames, 1 + places, width))
        branch = branch.reshape(batch, frames, 1 + places, width)
        weight = jnp.ones((batch, frames), bool) if real is None else real.any(axis=-1)
        count = jnp.maximum(weight.sum(axis=1, keepdims=True), 1).astype(branch.dtype)
        of_class = jnp.sum(branch[:, :, 0], axis=1, where=weight[..., None]) / count
        of_patches = branch[:, :, 1:].reshape(batch, length - 1, width)
        branch = jnp.concatenate([of_class[:, None], of_patches], axis=1)
        tokens = self.attention_residual(tokens, branch, train, drop_path)
        return self.mlp_residual(tokens, self.mlp(self.mlp_norm(tokens), train), train, drop_path)
