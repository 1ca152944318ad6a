"""Modality dropout: in training a fusion does not see some of the streams an example has."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.components import component
from mmjax.errors import ConfigError
from mmjax.fusion import common
from mmjax.types import Features


class ModalityDropout(nn.Module):
    """Hides whole streams from another fusion, as ModDrop, Neverova et al. 2016, arXiv:1501.00102
    (where a dropped modality is zeros; here it is missing, which the fusion knows).

    In training each stream that an example has is hidden from the fusion with its rate, each on its
    own; where that would hide all of them, one drawn evenly stays. Otherwise nothing changes: the
    parameters are those of `fusion`, under the same names, so a run may start from one without this.

    The streams' own features are left whole: embeddings contrasted before fusion keep all their
    rows. To hide a stream from its encoder and all losses too, give it a `drop_rate` in
    `data.streams` instead. A fusion inside the encoders (`bottleneck`, `gated_cross_attention`) has
    no features before it: what is hidden from it, its stream's features lack too. Tokens of a hidden
    stream are masked in 'fused'; where a head predicts a stream's tokens there, give that stream the
    rate 0.

    Attributes:
      fusion: which sees what is left.
      rate: of every stream that `rates` does not name.
      rates: stream -> rate.
    """

    fusion: component("fusions")
    rate: float = 0.1
    rates: dict[str, float] = dataclasses.field(default_factory=dict)

    def setup(self):
        nn.share_scope(self, self.fusion)

    @property
    def inside(self) -> bool:
        """Whether the fusion works inside the encoders."""
        return getattr(self.fusion, "inside", False)

    def __call__(self, features: dict[str, Any], *, train: bool = False) -> Any:
        """What `fusion` makes of the streams that are left: `Features` or `Stack`s, as it takes."""
        names = sorted(features)
        for name in self.rates:
            common.check_stream("rates", name, names)
        rates = {name: self.rates.get(name, self.rate) for name in names}
        for name, rate in rates.items():
            if not 0 <= rate <= 1:
                raise ConfigError(f"model.fusion.rate: got {rate} for stream '{name}', expected 0 to 1")
        if train and len(names) > 1 and any(rates.values()):
            present = jnp.stack([features[name].present for name in names], axis=1)
            kept = keep_some(self.make_rng("dropout"), present, jnp.asarray(list(rates.values())))
            features = {name: _hide(features[name], kept[:, i]) for i, name in enumerate(names)}
        return self.fusion(features, train=train)


def keep_some(
    key: Key[Array, ""], present: Bool[Array, "B M"], rates: Float[Array, " M"]
) -> Bool[Array, "B M"]:
    """Which of the streams that are `present` stay: each is dropped with its rate, never all of a row."""
    drop_key, keep_key = jax.random.split(key)
    kept = present & (jax.random.uniform(drop_key, present.shape) >= rates)
    order = jnp.where(present, jax.random.uniform(keep_key, present.shape), -1.0)
    one = jax.nn.one_hot(order.argmax(axis=1), present.shape[1], dtype=bool) & present
    return jnp.where(kept.any(axis=1, keepdims=True), kept, one)


def _hide(stream, kept):
    """`stream` without the rows that are not `kept`."""
    mask = stream.mask & kept[:, None]
    if isinstance(stream, Features):
        return stream.replace(mask=mask)
    x = jnp.where(kept.reshape(-1, *[1] * (stream.x.ndim - 1)), stream.x, jnp.zeros((), stream.x.dtype))
    return dataclasses.replace(stream, x=x, mask=mask, present=stream.present & kept)
