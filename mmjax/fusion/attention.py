"""What the fusions made of layers of attention share: their sizes, and the stack they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.layers.norms import LayerNorm
from mmjax.layers.transformer import BlockSettings, Residual, Transformer
from mmjax.types import Features


class AttentionFusion(nn.Module):
    """A fusion with layers of attention and MLP.

    Attributes:
      width: D inside and of the output.
      depth: number of layers.
      heads: H, a divisor of the width.
      mlp_width: F; 0 is 4 D.
      dropout: rate on each branch, in training.
      remat: which activations of a layer are recomputed, see `mmjax.layers.remat`.
      dtype: what it computes in.
    """

    width: int = 512
    depth: int = 6
    heads: int = 8
    mlp_width: int = 0
    dropout: float = 0.0
    remat: Any = False
    dtype: Any = jnp.float32

    def settings(self, **more: Any) -> BlockSettings:
        """The shape of a layer; `more` are further fields of it."""
        return BlockSettings(
            width=self.width, heads=self.heads, mlp_width=self.mlp_width, dropout=self.dropout, **more
        )


class TransformerFusion(AttentionFusion):
    """A fusion whose layers are one stack of transformer blocks.

    Attributes:
      drop_path: probability that the last block's branches are dropped; earlier ones' less.
      scan: one block scanned over stacked parameters, see `mmjax.layers.transformer.transformer_blocks`.
    """

    drop_path: float = 0.0
    scan: Any = False

    def transformer(self, **more: Any) -> Transformer:
        """The stack; `more` are further fields of `BlockSettings`."""
        return Transformer(
            depth=self.depth,
            settings=self.settings(**more),
            drop_path=self.drop_path,
            remat=self.remat,
            scan=self.scan,
            dtype=self.dtype,
            name="transformer",
        )


def look_at(
    tokens: Mapping[str, Float[Array, "B _ D"]], streams: Mapping[str, Features], names: Iterable[str]
) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
    """The tokens of the streams `names` as one sequence, and their mask: what cross-attention looks at."""
    names = list(names)
    context = jnp.concatenate([tokens[name] for name in names], axis=1)
    return context, jnp.concatenate([streams[name].mask for name in names], axis=1)


def feed_forward(
    settings: BlockSettings, dtype: Any, x: Float[Array, "B L D"], train: bool, prefix: str = ""
) -> Float[Array, "B L D"]:
    """x + MLP(LN x), for use in a compact method: its modules are `<prefix>mlp_norm`, `<prefix>mlp` and
    `<prefix>mlp_residual`."""
    normed = LayerNorm(dtype=dtype, name=f"{prefix}mlp_norm")(x)
    branch = settings.make_mlp(dtype, name=f"{prefix}mlp")(normed, train)
    return Residual(settings, name=f"{prefix}mlp_residual")(x, branch, train)
