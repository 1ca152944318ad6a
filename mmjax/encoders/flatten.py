"""Tokens side by side, as one vector that a linear layer can read with weights for each place."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from mmjax.components import component
from mmjax.encoders.common import check_rank, full_mask, make_features
from mmjax.errors import ConfigError
from mmjax.types import Features


class Flatten(nn.Module):
    """The tokens of an encoder, or vectors [B, L, C] as they are, joined to one token.

    It is as wide as all of them together. A mean forgets where things are; a classifier on this does not.
    Without an encoder there are no parameters, and a linear classifier is a logistic regression.

    Attributes:
      length: L; fewer are filled up with zeros.
      encoder: whose tokens; none takes the input itself.
      dtype: what the input is taken in where there is no encoder.
    """

    length: int
    encoder: component("encoders") | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Shaped[Array, "B ..."], mask: Bool[Array, "#B #L"] | None = None, *, train: bool = False
    ) -> Features:
        """Encodes what the encoder does, or vectors.

        Args:
          x, mask: as the encoder takes them.
          train: likewise.

        Raises:
          ConfigError: where there are more than `length` tokens, or no encoder and no vectors.
        """
        if self.encoder is None:
            check_rank("flatten without an encoder", x, "vectors [B, L, C]")
            tokens, mask = x.astype(self.dtype), full_mask(mask, *x.shape[:2])
        else:
            features = self.encoder(x, mask, train=train)
            tokens, mask = features.tokens, features.mask
        flat = side_by_side(tokens, mask, self.length, "flatten")
        return make_features(flat[:, None], mask.any(axis=1, keepdims=True), flat)


def side_by_side(
    tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"], length: int, encoder: str
) -> Float[Array, "B {length}*D"]:
    """The tokens of each row joined, with zeros where one is not real, and behind them up to `length`.

    Args:
      encoder: whose `length` it is, for the message.

    Raises:
      ConfigError: where there are more than `length`.
    """
    missing = length - tokens.shape[1]
    if missing < 0:
        raise ConfigError(f"{encoder}.length: got {length}, expected {tokens.shape[1]} or more tokens")
    tokens = jnp.pad(jnp.where(mask[..., None], tokens, 0), ((0, 0), (0, missing), (0, 0)))
    return tokens.reshape(len(tokens), -1)
