"""A table of vectors, one for each id of a vocabulary."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class TokenEmbedding(nn.Embed):
    """`flax.linen.Embed` that says where table and tokens lie.

    Left alone, the compiler looks up in a table that is split along its width by gathering it and the
    tokens. Here devices keep their words and give zeros for those of others, and one sum makes the
    tokens.
    """

    def __call__(self, inputs: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """The vectors of ids below `num_embeddings`."""
        (table,) = self.promote_dtype(self.embedding, dtype=self.dtype, inexact=False)
        table = nn.with_logical_constraint(table, ("vocabulary", "width"))
        tokens = jnp.take(table, inputs, axis=0)
        return nn.with_logical_constraint(tokens, ("batch", "length", "width"))
