"""What a fusion that works inside the encoders is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.errors import ConfigError
from mmjax.fusion.common import silence
from mmjax.types import Features


@dataclasses.dataclass(frozen=True)
class Stack:
    """A stream on its way through its encoder, for a fusion that works inside the stack.

    Such a fusion is a Linen module whose class has `inside = True` and whose call is
    `(stacks: dict[str, Stack], *, train) -> dict[str, Features]`: the features of every stream, and
    'fused'. A stream's features have then seen the other streams.

    Attributes:
      encoder: of the stream.
      x, mask: what it encodes; zeros where the stream is missing.
      present: bool `[B]`, which examples have the stream.
      train: whether dropout is on.
      further: the further arrays of the stream that the encoder takes, see `mmjax.encoders`.
    """

    encoder: nn.Module
    x: jax.Array
    mask: jax.Array
    present: jax.Array
    train: bool
    further: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)

    def without(self) -> Stack:
        """The same of a stream that no example has."""
        nothing = {name: jnp.zeros_like(getattr(self, name)) for name in ("x", "mask", "present")}
        return dataclasses.replace(self, **nothing)

    def features(self) -> Features:
        """The whole encoder at once, as it is without a fusion inside."""
        return self._close(self.encoder(self.x, self.mask, train=self.train, **self.further))

    def embed(self) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """What enters the blocks: tokens `[B, L, D]`, mask `[B, L]`, the mask for attention or None.

        Raises:
          ConfigError: where the encoder is no stack of transformer blocks.
        """
        if not hasattr(self.encoder, "embed"):
            raise ConfigError(
                f"model.fusion: works between the blocks of {self.encoder.name}, which has none; use an "
                "encoder that is a transformer, or another fusion"
            )
        return self.encoder.embed(self.x, self.mask, self.train, **self.further)

    @property
    def depth(self) -> int:
        """How many blocks there are."""
        return self.encoder.size.depth

    def run(
        self, tokens: jax.Array, attention_mask: jax.Array | None, start: int = 0, stop: int | None = None
    ) -> jax.Array:
        """`tokens` through the blocks from `start` up to, and without, `stop`."""
        return self.encoder.run(tokens, attention_mask, self.train, start=start, stop=stop)

    def finish(self, tokens: jax.Array, mask: jax.Array) -> Features:
        """Features from what leaves the blocks."""
        return self._close(self.encoder.finish(tokens, mask))

    def _close(self, features: Features) -> Features:
        return silence(features.replace(mask=features.mask & self.present[:, None]))
