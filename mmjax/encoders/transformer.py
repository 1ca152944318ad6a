"""What encoders that are a stack of transformer blocks share."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from mmjax.encoders.common import TransformerSize, Variant, transformer_size
from mmjax.errors import ConfigError
from mmjax.layers.mlp import Activation
from mmjax.layers.transformer import (
    BlockSettings,
    drop_path_rates,
    run_blocks,
    transformer_blocks,
)
from mmjax.types import Features

# tokens [B, L, D], their mask [B, L], and the mask for attention: None where none hides from another.
Embedded: TypeAlias = tuple[Float[Array, "B L D"], Bool[Array, "B L"], Bool[Array, "B L"] | None]

_PROJECTIONS = ("query", "key", "value", "out")


class TransformerEncoder(nn.Module, abc.ABC):
    """An encoder as three steps: `embed`, the blocks, `finish`.

    A subclass has `embed` and `finish`, and calls `make_blocks` in its `setup`. A fusion inside the
    stack, such as bottleneck tokens, calls the three steps itself and does its own between the blocks.

    Attributes:
      variant: a size by name, see `mmjax.encoders.common.SIZES`.
      width, depth, heads, mlp_width: what differs from the variant; all but the last for 'custom'.
      activation, eps, norm_position, layer_scale: see `mmjax.layers.transformer.BlockSettings`.
      attention_biases: the projections of attention that have a bias.
      final_norm: what is normalised after the blocks: 'all' tokens, the 'pooled' vector alone, or
        'none'. Where blocks normalise last ('post') it must be 'all', and nothing more is done.
      dropout: rate of the embedding, attention and MLP outputs.
      drop_path: probability that the last block's branches are dropped; earlier ones' less.
      remat: which activations of a block are recomputed, see `mmjax.layers.remat`.
      scan: one block scanned over stacked parameters, see `transformer_blocks`.
      dtype: what it computes in.
    """

    variant: Variant = "S"
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    mlp_width: int | None = None
    activation: Activation = "gelu"
    eps: float = 1e-6
    norm_position: Literal["pre", "post"] = "pre"
    layer_scale: float | None = None
    attention_biases: Sequence[str] = _PROJECTIONS
    final_norm: Literal["all", "pooled", "none"] = "all"
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: Any = False
    scan: Any = False
    dtype: Any = jnp.float32

    @property
    def size(self) -> TransformerSize:
        """Width, depth, heads and MLP width."""
        return transformer_size(self.variant, self.width, self.depth, self.heads, self.mlp_width)

    def make_blocks(self, **settings: Any) -> BlockSettings:
        """Sets `blocks`, `norm` and `embedding_dropout`; `settings` are further `BlockSettings`."""
        unknown = sorted(set(self.attention_biases) - set(_PROJECTIONS))
        if unknown:
            raise ConfigError(
                f"attention_biases: got '{unknown[0]}', expected some of: {', '.join(_PROJECTIONS)}"
            )
        size = self.size
        settings = BlockSettings(
            width=size.width,
            heads=size.heads,
            mlp_width=size.mlp_width,
            activation=self.activation,
            attention_biases=self.attention_biases,
            eps=self.eps,
            norm_position=self.norm_position,
            layer_scale=self.layer_scale,
            dropout=self.dropout,
            **settings,
        )
        self.embedding_dropout = nn.Dropout(self.dropout)
        self.blocks = self.make_stack(settings)
        if self.norm_position == "post" and self.final_norm != "all":
            raise ConfigError(
                f"final_norm: got '{self.final_norm}', expected 'all': with norm_position 'post' the last "
                "block has normalised every token"
            )
        if self.norm_position == "pre" and self.final_norm != "none":
            self.norm = settings.make_norm(self.dtype)
        return settings

    def make_stack(self, settings: BlockSettings, **fields: Any) -> list[nn.Module] | nn.Module:
        """The blocks, for `run_blocks`; `fields` are passed on to `transformer_blocks`.

        A subclass whose blocks are not the usual ones hands their class over.
        """
        return transformer_blocks(
            self.size.depth, settings, remat=self.remat, scan=self.scan, dtype=self.dtype, **fields
        )

    def norm_tokens(self, tokens: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """The final normalisation of all tokens, where there is one."""
        return self.norm(tokens) if (self.norm_position, self.final_norm) == ("pre", "all") else tokens

    def norm_pooled(self, pooled: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """The final normalisation of the pooled vector alone, where there is one."""
        return self.norm(pooled) if self.final_norm == "pooled" else pooled

    def __call__(
        self, x: Shaped[Array, "B ..."], mask: Bool[Array, "#B #_"] | None = None, *, train: bool = False
    ) -> Features:
        """Encodes a batch.

        Args:
          x: what `embed` of the encoder takes.
          mask: what of it is real, see there; None is all.
          train: whether dropout and drop path are on.

        Raises:
          ConfigError: where `x` is no such batch, or does not fit the encoder's sizes.
        """
        tokens, token_mask, attention_mask = self.embed(x, mask, train)
        return self.finish(self.run(tokens, attention_mask, train), token_mask)

    def run(
        self,
        tokens: Float[Array, "B L D"],
        attention_mask: Bool[Array, "B L"] | None,
        train: bool,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> Float[Array, "B L D"]:
        """`tokens` through the blocks from `start` up to, and without, `stop`; by default all.

        Raises:
          ConfigError: for some of the blocks of a scanned stack.
        """
        depth = self.size.depth
        rates = drop_path_rates(depth, self.drop_path)
        if (start, stop or depth) == (0, depth):
            blocks = self.blocks
        elif self.scan:
            raise ConfigError("scan: is on, but this fusion works between the blocks; set it to False")
        else:
            blocks, rates = self.blocks[start:stop], rates[start:stop]
        return run_blocks(
            blocks, tokens, attention_mask, train, bias=self.attention_bias(tokens.shape[1]), drop_path=rates
        )

    def attention_bias(self, length: int) -> Float[Array, "1 H L L"] | None:
        """What all blocks add to the scores of self-attention; by default nothing."""
        del length
        return None

    @abc.abstractmethod
    def embed(self, x: Shaped[Array, "B ..."], mask: Bool[Array, "#B #_"] | None, train: bool) -> Embedded:
        """What enters the blocks."""

    @abc.abstractmethod
    def finish(self, tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Features:
        """Features from what leaves the blocks."""
