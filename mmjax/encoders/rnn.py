"""Recurrent networks over sequences: LSTM and GRU."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.encoders.common import check_ids, check_rank, full_mask, make_features
from mmjax.layers.embedding import TokenEmbedding
from mmjax.layers.pooling import POOLINGS
from mmjax.layers.recurrent import Recurrent
from mmjax.types import Features


class RNN(nn.Module):
    """Token ids [B, L], or vectors [B, L, C], through recurrent layers.

    Tokens are the last layer's states, `pooled` its final one: of both directions, one after the
    other, where there are two (D is then twice the width).

    Attributes:
      cell: 'lstm' or 'gru', see `mmjax.layers.recurrent.Recurrent`.
      width: of a state.
      layers: how many, each reading the states of the one below.
      bidirectional: a second network reads from the end to the start (Schuster and Paliwal 1997).
      vocab_size: V of token ids, 0 stands for that of the stream's tokenizer; for vectors it stays 0.
      embedding_width: of a token's vector; none is the width.
      pooling: 'last' the final state, or over all of them.
      second_biases: see `mmjax.layers.recurrent.Recurrent`.
      dropout: rate of each layer's input.
      dtype: what it computes in.
    """

    cell: Literal["lstm", "gru"] = "lstm"
    width: int = 256
    layers: int = 1
    bidirectional: bool = False
    vocab_size: int = 0
    embedding_width: int | None = None
    pooling: Literal["last", "mean", "max"] = "last"
    second_biases: bool = False
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Int[Array, "B L"] | Float[Array, "B L C"],
        mask: Bool[Array, "#B #L"] | None = None,
        *,
        train: bool = False,
    ) -> Features:
        """Encodes sequences.

        Args:
          x: ids below `vocab_size`, or vectors where that is 0.
          mask: which steps are real; None is all. Others are passed over.
          train: whether dropout is on.

        Raises:
          ConfigError: where `x` is neither.
        """
        if self.vocab_size:
            check_ids("rnn", x, self.vocab_size)
        else:
            check_rank("rnn without vocab_size", x, "vectors [B, L, C]")
        mask = full_mask(mask, *x.shape[:2])
        if self.vocab_size:
            init = nn.initializers.normal(0.02)
            features = self.embedding_width or self.width
            embed = TokenEmbedding(
                self.vocab_size, features, embedding_init=init, dtype=self.dtype, name="embedding"
            )
            tokens = embed(jnp.where(mask, x, 0))
        else:
            tokens = jnp.where(mask[..., None], x, 0).astype(self.dtype)
        for layer in range(self.layers):
            tokens = nn.Dropout(self.dropout, deterministic=not train)(tokens)
            tokens, last = self._layer(layer, tokens, mask)
        pooled = last if self.pooling == "last" else POOLINGS[self.pooling](tokens, mask)
        return make_features(tokens, mask, pooled)

    def _layer(self, layer, tokens, mask):
        names = ("forward", "backward") if self.bidirectional else ("forward",)
        read = [
            Recurrent(
                self.width,
                self.cell,
                reverse=name == "backward",
                second_biases=self.second_biases,
                dtype=self.dtype,
                name=f"{name}_{layer}",
            )(tokens, mask)
            for name in names
        ]
        outputs, last = zip(*read, strict=True)
        return jnp.concatenate(outputs, axis=-1), jnp.concatenate(last, axis=-1)
