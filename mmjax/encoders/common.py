"""What encoders share: sizes by name, checks of their input, and how `Features` are closed."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from mmjax.errors import ConfigError
from mmjax.layers.pooling import zero_absent
from mmjax.types import Features

Variant: TypeAlias = Literal["custom", "mu", "Ti", "S", "M", "B", "L", "So400m", "H", "g", "G"]


@dataclasses.dataclass(frozen=True)
class TransformerSize:
    """width D, number of blocks, heads H, MLP width F."""

    width: int
    depth: int
    heads: int
    mlp_width: int


# Ti, S, B, L: Steiner et al. 2021 (arXiv:2106.10270), table 2; H: Dosovitskiy et al. 2020
# (arXiv:2010.11929), table 1; g, G: Zhai et al. 2021 (arXiv:2106.04560), table 2; So400m: Alabdulmohsin
# et al. 2023 (arXiv:2305.13035); mu, M: for quick runs and in between.
SIZES = {
    "mu": TransformerSize(32, 1, 2, 128),
    "Ti": TransformerSize(192, 12, 3, 768),
    "S": TransformerSize(384, 12, 6, 1536),
    "M": TransformerSize(512, 12, 8, 2048),
    "B": TransformerSize(768, 12, 12, 3072),
    "L": TransformerSize(1024, 24, 16, 4096),
    "So400m": TransformerSize(1152, 27, 16, 4304),
    "H": TransformerSize(1280, 32, 16, 5120),
    "g": TransformerSize(1408, 40, 16, 6144),
    "G": TransformerSize(1664, 48, 16, 8192),
}


def transformer_size(
    variant: Variant,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    mlp_width: int | None = None,
) -> TransformerSize:
    """The size called `variant`, with what is given instead; 'custom' needs width, depth and heads.

    Raises:
      ConfigError: naming what 'custom' lacks.
    """
    given = {"width": width, "depth": depth, "heads": heads, "mlp_width": mlp_width}
    given = {key: value for key, value in given.items() if value is not None}
    if variant != "custom":
        return dataclasses.replace(SIZES[variant], **given)
    lacking = [key for key in ("width", "depth", "heads") if key not in given]
    if lacking:
        raise ConfigError(f"{lacking[0]}: is missing; variant 'custom' needs width, depth and heads")
    return TransformerSize(**{"mlp_width": 4 * width, **given})


def check_rank(encoder: str, x: Shaped[Array, "..."], expected: str) -> None:
    """Raises ConfigError unless `x` has as many axes as `expected`, such as 'images [B, h, w, C]', names."""
    if x.ndim != expected.count(",") + 1:
        raise ConfigError(f"{encoder}: got an input of shape {list(x.shape)}, expected {expected}")


def check_ids(encoder: str, ids: Shaped[Array, "..."], vocab_size: int) -> None:
    """Raises ConfigError unless `ids` are whole numbers [B, L] and the vocabulary is known."""
    check_rank(encoder, ids, "token ids [B, L]")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ConfigError(f"{encoder}: got an input of {ids.dtype}, expected whole numbers, token ids [B, L]")
    if vocab_size < 1:
        raise ConfigError(
            f"{encoder}: vocab_size is {vocab_size}, expected the size of the tokenizer's vocabulary"
        )


def full_mask(mask: Bool[Array, "#B #L"] | None, batch: int, length: int) -> Bool[Array, "{batch} {length}"]:
    """`mask` with one entry per token; all True where none was given.

    Raises:
      ConfigError: where it has neither one entry per row nor one per token.
    """
    if mask is None:
        return jnp.ones((batch, length), bool)
    if mask.shape not in {(batch, 1), (batch, length)}:
        raise ConfigError(
            f"mask: got shape {list(mask.shape)}, expected {[batch, length]}, or {[batch, 1]} for whole rows"
        )
    return jnp.broadcast_to(mask, (batch, length))


def make_features(
    tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"], pooled: Float[Array, "B D"]
) -> Features:
    """Features that hold nothing of padding: zeros in its tokens, and in pooled where all is padding."""
    tokens = jnp.where(mask[..., None], tokens, jnp.zeros((), tokens.dtype))
    return Features(tokens=tokens, mask=mask, pooled=zero_absent(pooled, mask))
