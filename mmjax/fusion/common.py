"""What every fusion shares: the order of the streams, and what a missing one looks like.

A fusion is a Linen module `(features: dict[str, Features], *, train) -> Features`. It takes any
number of streams. Streams are taken in the sorted order of their names, whatever the order of the
dictionary: JAX sorts dictionaries at every transformation, so no other order would survive.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.components import suggestion
from mmjax.errors import ConfigError
from mmjax.layers.pooling import zero_absent
from mmjax.types import Features

T = TypeVar("T")


def in_order(features: Mapping[str, Features]) -> dict[str, Features]:
    """The streams sorted by name, with zeros wherever the mask is False.

    Zeros rather than whatever stands there: a weight of zero does not silence a NaN.

    Raises:
      ConfigError: there is no stream at all.
    """
    return {name: silence(stream) for name, stream in in_order_of_names(features).items()}


def in_order_of_names(streams: Mapping[str, T]) -> dict[str, T]:
    """Whatever there is per stream, sorted by name; ConfigError where there is no stream at all."""
    if not streams:
        raise ConfigError("model.fusion: got no streams, expected at least one in model.streams")
    return {name: streams[name] for name in sorted(streams)}


def silence(features: Features) -> Features:
    """`features` with zeros in tokens that are masked and in pooled vectors of absent examples."""
    tokens = jnp.where(features.mask[:, :, None], features.tokens, 0)
    return Features(tokens=tokens, mask=features.mask, pooled=zero_absent(features.pooled, features.mask))


def gather(
    tokens: Sequence[Float[Array, "B _ D"]],
    streams: Mapping[str, Features],
    pooled: Float[Array, "B D"],
    own: Float[Array, "B _ D"] | None = None,
) -> Features:
    """The entry 'fused': the streams' tokens one after another, and a vector per example.

    Args:
      tokens: `[B, L_i, D]` per stream, in the order of `streams`.
      streams: what the fusion was given, for the masks.
      pooled: `[B, D]`; rows in which every stream is missing are set to zero.
      own: tokens of the fusion itself (a class token, learned queries), which stand in front; real
        wherever the example has any stream.
    """
    mask = jnp.concatenate([f.mask for f in streams.values()], axis=1)
    pooled = zero_absent(pooled, mask)
    if own is not None:
        has_any = jnp.broadcast_to(mask.any(axis=1, keepdims=True), own.shape[:2])
        tokens, mask = [own, *tokens], jnp.concatenate([has_any, mask], axis=1)
    joined = jnp.where(mask[:, :, None], jnp.concatenate(tokens, axis=1), 0)
    return Features(tokens=joined, mask=mask, pooled=pooled)


def stream_tokens(features: Mapping[str, Features], stream: str) -> Float[Array, "B L D"]:
    """The part of the fused tokens that came from `stream`.

    Every fusion ends its tokens with those of the streams, in the sorted order of their names;
    tokens of its own (a class token, bottlenecks) stand before them.

    Args:
      features: the entry 'fused' and the streams it was made of.
      stream: which part, e.g. 'text'.

    Returns:
      `[B, L, D]` with the L of the stream.

    Raises:
      ConfigError: there is no such stream.
    """
    names = sorted(set(features) - {"fused"})
    if stream not in names:
        raise ConfigError(f"got stream '{stream}', expected one of: {', '.join(names)}")
    fused, length = features["fused"].tokens, features[stream].tokens.shape[1]
    after = sum(features[name].tokens.shape[1] for name in names if name > stream)
    return jax.lax.slice_in_dim(fused, fused.shape[1] - after - length, fused.shape[1] - after, axis=1)


def present(streams: Mapping[str, Features]) -> jax.Array:
    """bool `[B, M]`: which stream each example has, in the order of `streams`."""
    return jnp.stack([f.present for f in streams.values()], axis=1)


class TypedTokens(nn.Module):
    """The tokens of every stream at one width, each with the learned vector of its stream added.

    That vector is the modality-type embedding of ViLT (Kim et al. 2021, arXiv:2102.03334, section
    3.1), and stands for the bias of the projection too.

    Attributes:
      width: D.
      dtype: what it computes in.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, streams: dict[str, Features]) -> dict[str, Float[Array, "B _ {self.width}"]]:
        embedded = {}
        for name, stream in streams.items():
            project = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name=f"{name}_projection")
            init = nn.initializers.normal(0.02)
            kind = self.param(f"{name}_type", init, (self.width,), jnp.float32)
            embedded[name] = project(stream.tokens) + kind.astype(self.dtype)
        return embedded


class LearnedTokens(nn.Module):
    """Learned vectors, the same in every example: a class token, queries, bottlenecks.

    They start on the scale of the projected tokens beside them, to which BERT, ViLT and Q-Former
    normalise theirs. Much smaller ones would leave the first sums to rounding in 16 bits.

    Attributes:
      count: how many.
      width: D.
      dtype: of the result.
    """

    count: int
    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: int) -> Float[Array, "{batch} {self.count} {self.width}"]:
        init = nn.initializers.normal(1.0)
        vectors = self.param("vectors", init, (self.count, self.width), jnp.float32)
        return jnp.broadcast_to(vectors.astype(self.dtype), (batch, self.count, self.width))


def check_stream(key: str, name: str, streams: Collection[str]) -> None:
    """Raises ConfigError unless the setting `key` names one of the streams."""
    if name not in streams:
        raise ConfigError(
            f"model.fusion.{key}: got '{name}'{suggestion(name, streams)}, "
            f"expected one of the streams: {', '.join(sorted(streams))}"
        )


def check_positive(**settings: int) -> None:
    """Raises ConfigError unless every setting is at least 1."""
    for key, value in settings.items():
        if value < 1:
            raise ConfigError(f"model.fusion.{key}: got {value}, expected a whole number from 1 on")
