"""A distribution over a vocabulary at every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.common import stream_tokens
from mmjax.heads.hidden import HiddenLayers
from mmjax.types import Features


class TokenLogits(nn.Module):
    """Scores of every word at every token, for masked or causal language modelling.

    Attributes:
      stream: the stream whose tokens are predicted.
      reads: that stream, or 'fused', of whose tokens it takes those that came from the stream.
      vocab_size: V; 0 is filled from the stream's tokenizer.
      hidden: widths of hidden layers.
      dtype: what it computes in; the logits are float32.
    """

    stream: str
    reads: str = "fused"
    vocab_size: int = 0
    hidden: Sequence[int] = ()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Float[Array, "B L V"]:
        """Logits; those at masked tokens mean nothing."""
        fused = self.reads == "fused"
        x = stream_tokens(features, self.stream) if fused else features[self.reads].tokens
        x = HiddenLayers(self.hidden, 0.0, self.dtype, name="hidden")(x, train)
        logits = nn.Dense(self.vocab_size, dtype=self.dtype, name="logits")(x).astype(jnp.float32)
        return nn.with_logical_constraint(logits, ("batch", "length", "vocabulary"))
