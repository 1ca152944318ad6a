"""The transformer block, and stacks of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from mmjax.layers.attention import MultiHeadAttention, token_mask
from mmjax.layers.mlp import MLP, Activation
from mmjax.layers.norms import LayerNorm, RMSNorm
from mmjax.layers.remat import RESIDUAL, rematerialised
from mmjax.parallel.placement import gathered, gathers

AttentionMask = Bool[Array, "B L"] | Bool[Array, "#B #H #L #L"]
DropRate = float | Float[Array, ""] | None  # none drops nothing


@dataclasses.dataclass(frozen=True)
class BlockSettings:
    """The shape of one transformer block.

    Attributes:
      width: D.
      heads: H.
      mlp_width: F; 0 is 4 D.
      activation, gated_mlp, mlp_bias: see `mmjax.layers.mlp.MLP`.
      head_width, attention_biases, causal, rotary: see `mmjax.layers.attention.MultiHeadAttention`.
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
    rotary: bool = False
    cross_attention: bool = False
    norm: Literal["layer", "rms"] = "layer"
    eps: float = 1e-6
    norm_position: Literal["pre", "post"] = "pre"
    layer_scale: float | None = None
    dropout: float = 0.0

    def make_norm(self, dtype: Any) -> nn.Module:
        """A fresh normalisation layer of this kind."""
        return (LayerNorm if self.norm == "layer" else RMSNorm)(eps=self.eps, dtype=dtype)

    def make_mlp(self, dtype: Any, name: str | None = None) -> MLP:
        """A fresh feed-forward layer of this kind."""
        return MLP(
            hidden=self.mlp_width or 4 * self.width,
            activation=self.activation,
            gated=self.gated_mlp,
            use_bias=self.mlp_bias,
            dropout=self.dropout,
            dtype=dtype,
            name=name,
        )


class DropPath(nn.Module):
    """Stochastic depth: drops a branch of an example whole (Huang et al. 2016, arXiv:1603.09382)."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], rate: DropRate, train: bool = False
    ) -> Float[Array, "B L D"]:
        """`x` with rows set to zero with probability `rate` in training, the others scaled up for it."""
        if rate is None or not train:
            return x
        keep = 1.0 - jnp.asarray(rate, jnp.float32)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, (x.shape[0],) + (1,) * (x.ndim - 1))
        return jnp.where(kept, x / keep.astype(x.dtype), jnp.zeros((), x.dtype))


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

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B L D"],
        branch: Float[Array, "B L D"],
        train: bool,
        drop_path: DropRate = None,
    ) -> Float[Array, "B L D"]:
        branch = nn.Dropout(self.settings.dropout, deterministic=not train)(branch)
        if self.settings.layer_scale is not None:
            branch = LayerScale(self.settings.layer_scale, name="layer_scale")(branch)
        branch = DropPath()(branch, drop_path, train)
        total = nn.with_logical_constraint(tokens + branch, ("batch", "length", "width"))
        return checkpoint_name(total, RESIDUAL)


class TransformerBlock(nn.Module):
    """Self-attention, optional cross-attention, MLP; each one adds to the tokens.

    Attributes:
      settings: its shape.
      dtype: what it computes in.
    """

    settings: BlockSettings
    dtype: Any = jnp.float32

    def setup(self):
        s = self.settings
        self.attention_norm = s.make_norm(self.dtype)
        self.attention = self._attention(s.causal)
        self.attention_residual = Residual(s)
        if s.cross_attention:
            self.cross_norm = s.make_norm(self.dtype)
            self.cross_attention = self._attention(causal=False, context=True)
            self.cross_residual = Residual(s)
        self.mlp_norm = s.make_norm(self.dtype)
        self.mlp = s.make_mlp(self.dtype)
        self.mlp_residual = Residual(s)

    def _attention(self, causal, context=False):
        s = self.settings
        return MultiHeadAttention(
            s.width,
            s.heads,
            s.head_width,
            s.attention_biases,
            causal=causal,
            rotary=s.rotary and not context,
            dtype=self.dtype,
        )

    def __call__(
        self,
        tokens: Float[Array, "B L D"],
        mask: AttentionMask | None = None,
        train: bool = False,
        context: Float[Array, "B Lk Dk"] | None = None,
        context_mask: Bool[Array, "B Lk"] | None = None,
        bias: Float[Array, "#B #H L L"] | None = None,
        drop_path: DropRate = None,
    ) -> Float[Array, "B L D"]:
        """One layer.

        Args:
          tokens: what goes through.
          mask: True where a token is real [B, L], or which token sees which [B|1, H|1, L, L]; None
            lets every token see all.
          train: whether dropout and drop path are on (rng 'dropout').
          context, context_mask: what cross-attention looks at.
          bias: added to the scores of self-attention.
          drop_path: probability that a branch is dropped in training, per example.
        """
        s = self.settings
        if (context is not None) != s.cross_attention:
            expected = "a context" if s.cross_attention else "no context"
            raise ValueError(f"expected {expected}: cross_attention is {s.cross_attention}")
        mask = _attention_mask(mask)

        def add(tokens, branch, norm, residual):
            if s.norm_position == "pre":
                return residual(tokens, branch(norm(tokens)), train, drop_path)
            return norm(residual(tokens, branch(tokens), train, drop_path))

        def look_inside(x):
            return self.attention(x, mask=mask, bias=bias)

        def look_at_context(x):
            return self.cross_attention(x, context, _attention_mask(context_mask))

        tokens = add(tokens, look_inside, self.attention_norm, self.attention_residual)
        if context is not None:
            tokens = add(tokens, look_at_context, self.cross_norm, self.cross_residual)
        return add(tokens, lambda x: self.mlp(x, train), self.mlp_norm, self.mlp_residual)


def _attention_mask(mask):
    return token_mask(mask) if mask is not None and mask.ndim == 2 else mask


def transformer_blocks(
    depth: int,
    settings: BlockSettings,
    *,
    block: type[TransformerBlock] = TransformerBlock,
    remat: bool | str = False,
    scan: bool = False,
    dtype: Any = jnp.float32,
    **fields: Any,
) -> list[nn.Module] | nn.Module:
    """The blocks of a stack, to be assigned to `self.blocks` in a `setup`, for `run_blocks`.

    Args:
      depth: how many.
      settings: the shape of each.
      block: their class, called as a `TransformerBlock` is.
      remat: which activations of a block are recomputed in the backward pass, see `mmjax.layers.remat`.
      scan: one block scanned over parameters with a leading axis of layers ('blocks/...'), compiled
        once whatever the depth, instead of one after the other ('blocks_0/...', 'blocks_1/...').
        `mmjax.layers.stacking` turns the parameters of one form into the other's.
      dtype: what they compute in.
      fields: further fields of `block`.
    """
    if not scan or not depth:
        # Argument 3 of __call__ (self is 0) is `train`, a Python bool.
        block = rematerialised(_gathering(block), remat, static_argnums=(3,))
        return [block(settings, dtype=dtype, **fields) for _ in range(depth)]
    scanned = nn.scan(
        rematerialised(_gathering(_as_scanned(block)), remat, static_argnums=(4,), scanned=True),
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, *(nn.broadcast,) * 5),
        length=depth,
    )
    return scanned(settings, dtype=dtype, **fields)


def _as_scanned(block: type[TransformerBlock]) -> type[TransformerBlock]:
    """`block` as `nn.scan` calls it: what it carries first, what differs from layer to layer second."""

    class Scanned(block):
        def __call__(self, tokens, drop_path, *arguments):
            return super().__call__(tokens, *arguments, drop_path), None

    return Scanned


def _gathering(block: type[TransformerBlock]) -> type[TransformerBlock]:
    """`block` that gathers its parameters where a mesh splits them, one block at a time."""
    if not gathers():
        return block
    return nn.map_variables(block, "params", gathered)


def drop_path_rates(depth: int, last: float) -> list[float]:
    """Rates that grow linearly from 0 in the first block to `last` in the last one."""
    return [last * i / max(depth - 1, 1) for i in range(depth)]


def run_blocks(
    blocks: Sequence[nn.Module] | nn.Module,
    tokens: Float[Array, "B L D"],
    mask: AttentionMask | None = None,
    train: bool = False,
    context: Float[Array, "B Lk Dk"] | None = None,
    context_mask: Bool[Array, "B Lk"] | None = None,
    bias: Float[Array, "#B #H L L"] | None = None,
    *,
    drop_path: Sequence[float],
) -> Float[Array, "B L D"]:
    """`tokens` through all of `blocks`, in either of the forms `transformer_blocks` makes.

    Args:
      blocks: from `transformer_blocks`, or some of a list of them.
      tokens, mask, train, context, context_mask, bias: see `TransformerBlock`.
      drop_path: one rate per block, see `drop_path_rates`.
    """
    arguments = (mask, train, context, context_mask, bias)
    if isinstance(blocks, nn.Module):
        rates = jnp.asarray(drop_path, jnp.float32) if any(drop_path) else None
        return blocks(tokens, rates, *arguments)[0]
    for block, rate in zip(blocks, drop_path, strict=True):
        tokens = block(tokens, *arguments, rate or None)
    return tokens


class Transformer(nn.Module):
    """A stack of blocks, with a final normalisation where blocks normalise first.

    Attributes:
      depth, settings, remat, scan, dtype: see `transformer_blocks`.
      drop_path: rate of the last block, see `drop_path_rates`.
    """

    depth: int
    settings: BlockSettings
    drop_path: float = 0.0
    remat: Any = False
    scan: Any = False
    dtype: Any = jnp.float32

    def setup(self):
        self.blocks = transformer_blocks(
            self.depth, self.settings, remat=self.remat, scan=self.scan, dtype=self.dtype
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
        rates = drop_path_rates(self.depth, self.drop_path)
        tokens = run_blocks(self.blocks, tokens, mask, train, context, context_mask, drop_path=rates)
        return self.norm(tokens) if self.settings.norm_position == "pre" else tokens
