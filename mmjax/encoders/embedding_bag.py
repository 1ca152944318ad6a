"""A bag of word vectors."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from mmjax.encoders.common import check_ids, full_mask, make_features
from mmjax.layers.embedding import TokenEmbedding
from mmjax.types import Features


class EmbeddingBag(nn.Module):
    """The sum of the tokens' vectors over the square root of their number, and a residual MLP.

    In the line of fastText (Joulin et al. 2016, arXiv:1607.01759), which takes the mean. Vectors
    start near zero, so that a token that training never saw says nothing, where a normalised or
    usually initialised one would add noise: on small data that decides.

    Attributes:
      width: D.
      vocab_size: V, 0 stands for that of the stream's tokenizer.
      mlp_width: F of the residual MLP; none is 2 D, and 0 leaves it out: the bag is then linear.
      initial: standard deviation of the vectors at the start.
      token_dropout: rate at which training leaves out tokens of a text, never all of them.
      dropout: rate on the pooled vector.
      dtype: what it computes in.
    """

    width: int = 128
    vocab_size: int = 0
    mlp_width: int | None = None
    initial: float = 1e-3
    token_dropout: float = 0.0
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Int[Array, "B L"], mask: Bool[Array, "#B #L"] | None = None, *, train: bool = False
    ) -> Features:
        """Encodes texts.

        Args:
          x: ids below `vocab_size`.
          mask: which tokens are real; None is all.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` is no batch of ids, or the vocabulary is not known.
        """
        check_ids("embedding_bag", x, self.vocab_size)
        mask = full_mask(mask, *x.shape)
        if train and self.token_dropout > 0:
            kept = mask & jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.token_dropout, mask.shape)
            mask = jnp.where(kept.any(axis=1, keepdims=True), kept, mask)
        table = TokenEmbedding(
            self.vocab_size,
            self.width,
            embedding_init=nn.initializers.normal(self.initial),
            dtype=self.dtype,
            name="embed",
        )
        tokens = jnp.where(mask[..., None], table(x), jnp.zeros((), self.dtype))
        number = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
        bag = tokens.sum(axis=1) / jnp.sqrt(number).astype(self.dtype)
        bag = self._add_mlp(bag) if self.mlp_width != 0 else bag
        pooled = nn.Dropout(self.dropout, deterministic=not train)(bag)
        return make_features(tokens, mask, pooled)

    def _add_mlp(self, bag):
        hidden = nn.Dense(self.mlp_width or 2 * self.width, dtype=self.dtype, name="up")(bag)
        return bag + nn.Dense(self.width, dtype=self.dtype, name="down")(nn.gelu(hidden))
