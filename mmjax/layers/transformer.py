"""The transformer block, and stacks of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.layers.attention import MultiHeadAttention, token_mask
from mmjax.layers.mlp import MLP, Activation
from mmjax.layers.norms import LayerNorm, RMSNorm

AttentionMask = Bool[Array, "B L"] | Bool[Array, "#B #H #L #L"]


@dataclasses.dataclass(frozen=True)
class BlockSettings:
    """The shape of one transformer block.

    Attributes:
      width: D.
      heads: H.
      mlp_width: F; 0 is 4 D.
      activation, gated_mlp, mlp_bias: see `mmjax.layers.mlp.MLP`.
      head_width, attention_biases, causal: see `mmjax.layers.attention.MultiHeadAttention`.
      cross_attention: a second attention, to a context, between self-attention and the MLP.
      norm, eps: which normalisation.
      norm_position: 'pre' normalises what enters attention and MLP (Xiong et al. 2020,
        arXiv:2002.04745), 'post' normalises each residual sum (Vaswani et al. 2017).
      layer_scale: initial value of a learned factor per channel on what each branch adds (Touvron
        et al. 2021, arXiv:2103.17239); none has no factor.
      dropout: rate after attention, in the MLP and after it.
    """

    width: int
    heads: int
    mlp_width: int = 0
    activation: Activation = "gelu"
    gated_mlp: bool = False
    mlp_bias: bool = True
    head_width: int | None = None
    attention_biases: Sequence[str] = ("query", "key", "value", "out")
    causal: bool = False
    cross_attention: bool = False
    norm: Literal["layer", "rms"] = "layer"
    eps: float = 1e-6
    norm_position: Literal["pre", "post"] = "pre"
    layer_scale: float | None = None
    dropout: float = 0.0

    def make_norm(self, dtype: Any) -> nn.Module:
        """A fresh normalisation layer of this kind."""
        return (LayerNorm if self.norm == "layer" else RMSNorm)(eps=self.eps, dtype=dtype)


class DropPath(nn.Module):
    """Stochastic depth: drops a branch of an example whole (Huang et al. 2016, arXiv:1603.09382)."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*axes"], train: bool = False) -> Float[Array, "*axes"]:
        return nn.Dropout(self.rate, broadcast_dims=range(1, x.ndim), deterministic=not train)(x)


class LayerScale(nn.Module):
    """A learned factor per channel."""

    initial: float

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        scale = self.param("scale", nn.initializers.constant(self.initial), (x.shape[-1],), jnp.float32)
        return x * scale.astype(x.dtype)


class Residual(nn.Module):
    """What a branch adds to the tokens: dropout, layer scale and drop path, then the sum."""

    settings: BlockSettings
    drop_path: float = 0.0

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B L D"], branch: Float[Array, "B L D"], train: bool
    ) -> Float[Array, "B L D"]:
        branch = nn.Dropout(self.settings.dropout, deterministic=not train)(branch)
        if self.settings.layer_scale is not None:
            branch = LayerScale(self.settings.layer_scale, name="layer_scale")(branch)
        branch = DropPath(self.drop_path)(branch, train)
        return nn.with_logical_constraint(tokens + branch, ("batch", "length", "width"))


class TransformerBlock(nn.Module):
    """Self-attention, optional cross-attention, MLP; each one adds to the tokens.

    Attributes:
      settings: its shape.
      drop_path: probability that a branch is dropped in training, per example.
      dtype: what it computes in.
    """

    settings: BlockSettings
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        s = self.settings
        self.attention_norm = s.make_norm(self.dtype)
        self.attention = self._attention(s.causal)
        self.attention_residual = Residual(s, self.drop_path)
        if s.cross_attention:
            self.cross_norm = s.make_norm(self.dtype)
            self.cross_attention = self._attention(causal=False)
            self.cross_residual = Residual(s, self.drop_path)
        self.mlp_norm = s.make_norm(self.dtype)
        self.mlp = MLP(
            hidden=s.mlp_width or 4 * s.width,
            activation=s.activation,
            gated=s.gated_mlp,
            use_bias=s.mlp_bias,
            dropout=s.dropout,
            dtype=self.dtype,
        )
        self.mlp_residual = Residual(s, self.drop_path)

    def _attention(self, causal):
        s = self.settings
        return MultiHeadAttention(
            s.width, s.heads, s.head_width, s.attention_biases, causal=causal, dtype=self.dtype
        )

    def __call__(
        self,
        tokens: Float[Array, "B L D"],
        mask: AttentionMask | None = None,
        train: bool = False,
        context: Float[Array, "B Lk Dk"] | None = None,
        context_mask: Bool[Array, "B Lk"] | None = None,
    ) -> Float[Array, "B L D"]:
        """One layer.

        Args:
          tokens: what goes through.
          mask: True where a token is real [B, L], or which token sees which [B|1, H|1, L, L]; None
            lets every token see all.
          train: whether dropout and drop path are on (rng 'dropout').
          context, context_mask: what cross-attention looks at.
        """
        if (context is not None) != self.settings.cross_attention:
            expected = "a context" if self.settings.cross_attention else "no context"
            raise ValueError(f"expected {expected}: cross_attention is {self.settings.cross_attention}")
        mask = _attention_mask(mask)

        def self_attention(x):
            return self.attention(x, mask=mask)

        def cross_attention(x):
            return self.cross_attention(x, context, _attention_mask(context_mask))

        tokens = self._add(tokens, self_attention, self.attention_norm, self.attention_residual, train)
        if context is not None:
            tokens = self._add(tokens, cross_attention, self.cross_norm, self.cross_residual, train)
        return self._add(tokens, lambda x: self.mlp(x, train), self.mlp_norm, self.mlp_residual, train)

    def _add(self, tokens, branch, norm, residual, train):
        if self.settings.norm_position == "pre":
            return residual(tokens, branch(norm(tokens)), train)
        return norm(residual(tokens, branch(tokens), train))


def _attention_mask(mask):
    return token_mask(mask) if mask is not None and mask.ndim == 2 else mask


def transformer_blocks(
    depth: int,
    settings: BlockSettings,
    *,
    drop_path: float = 0.0,
    remat: bool = False,
    dtype: Any = jnp.float32,
) -> list[nn.Module]:
    """The blocks of a stack, to be assigned to `self.blocks` in a `setup`; call them positionally.

    Args:
      depth: how many.
      settings: the shape of each.
      drop_path: probability in the last block; it grows linearly from 0 in the first.
      remat: recompute a block's activations in the backward pass instead of keeping them.
      dtype: what they compute in.
    """
    # Argument 3 of __call__ (self is 0) is `train`, a Python bool.
    block = nn.remat(TransformerBlock, static_argnums=(3,)) if remat else TransformerBlock
    rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
    return [block(settings, drop_path=rate, dtype=dtype) for rate in rates]


class Transformer(nn.Module):
    """A stack of blocks, with a final normalisation where blocks normalise first.

    Attributes:
      depth, settings, drop_path, remat, dtype: see `transformer_blocks`.
    """

    depth: int
    settings: BlockSettings
    drop_path: float = 0.0
    remat: Any = False
    dtype: Any = jnp.float32

    def setup(self):
        self.blocks = transformer_blocks(
            self.depth, self.settings, drop_path=self.drop_path, remat=self.remat, dtype=self.dtype
        )
        if self.settings.norm_position == "pre":
            self.norm = self.settings.make_norm(self.dtype)

    def __call__(
        self,
        tokens: Float[Array, "B L D"],
        mask: AttentionMask | None = None,
        train: bool = False,
        context: Float[Array, "B Lk Dk"] | None = None,
        context_mask: Bool[Array, "B Lk"] | None = None,
    ) -> Float[Array, "B L D"]:
        """All blocks, see `TransformerBlock`."""
        for block in self.blocks:
            tokens = block(tokens, mask, train, context, context_mask)
        return self.norm(tokens) if self.settings.norm_position == "pre" else tokens
