"""Transforms of a whole batch, on the device, in training: MixUp and CutMix.

A batch transform is a frozen dataclass with `__call__(batch, key) -> batch`, a pure function of JAX
arrays that runs inside the train step. The partner of row i is row i - 1: batches come in random
order, so it is a random example, and a sharded batch passes on one row per device where a random
permutation would gather all of it everywhere.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mmjax.errors import ConfigError
from mmjax.types import Batch


@dataclasses.dataclass(frozen=True)
class MixUp:
    """Weighted means of two examples and of their labels (Zhang et al. 2017, 1710.09412).

    x = lam x_i + (1 - lam) x_j, and the same for the one-hot labels, with one lam ~ Beta(alpha, alpha)
    for the batch. A row stays as it is where it or its partner lacks the stream or one of the labels.

    Attributes:
      labels: label in the batch -> number of its classes. The label, class indices int32 `[B]` or
        already soft `[B, N]`, becomes soft, float32 `[B, N]`; a missing label (-1) is a row of -1.
      stream: the stream that is mixed, float32 `[B, ...]`.
      also: further streams that are mixed with the same weights, in rows that have all of them; what
        their labels describe has to be in all of them.
      alpha: of the Beta distribution, above 0.
      probability: how often a batch is mixed; labels become soft in any case.
    """

    labels: dict[str, int]
    stream: str = "image"
    also: list[str] = dataclasses.field(default_factory=list)
    alpha: float = 0.2
    probability: float = 1.0

    def __post_init__(self):
        _check(self)

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        labels, streams = _soft_labels(self, batch), [self.stream, *self.also]
        lam, mixable = _draw(self, batch, labels, key, streams)
        own = jnp.where(mixable, lam, 1.0)
        mixed = {}
        for stream in streams:
            x = _float_stream(stream, batch)
            weight = _per_row(own, x.ndim).astype(x.dtype)
            mixed[stream] = weight * x + (1 - weight) * _partner(x)
        return {**batch, **mixed, **_mixed_labels(labels, own)}


@dataclasses.dataclass(frozen=True)
class CutMix:
    """A rectangle of one example pasted into another (Yun et al. 2019, 1905.04899).

    With lam ~ Beta(alpha, alpha), the rectangle has the proportions of the image and the area 1 - lam
    around a uniform centre, cut off at the edge; labels are weighted by the area that is left. One
    rectangle for the batch; in a video it is the same in every frame.

    Attributes:
      labels, probability: see `MixUp`.
      stream: images `[B, height, width, C]` or video `[B, T, height, width, C]`.
      alpha: of the Beta distribution, above 0.
    """

    labels: dict[str, int]
    stream: str = "image"
    alpha: float = 1.0
    probability: float = 1.0

    def __post_init__(self):
        _check(self)

    def __call__(self, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        key, key_y, key_x = jax.random.split(key, 3)
        labels = _soft_labels(self, batch)
        lam, mixable = _draw(self, batch, labels, key, [self.stream])
        x = batch[self.stream]
        if x.ndim < 4:
            raise ConfigError(f"cutmix.stream: '{self.stream}' is {x.shape}, expected images or video")
        height, width = x.shape[-3:-1]
        side = jnp.sqrt(1 - lam)
        rows = _inside(height, jax.random.randint(key_y, (), 0, height), side)
        columns = _inside(width, jax.random.randint(key_x, (), 0, width), side)
        pasted = (rows[:, None] & columns[None, :])[..., None] & _per_row(mixable, x.ndim)
        kept = 1 - rows.mean() * columns.mean()
        mixed = jnp.where(pasted, _partner(x), x)
        return {**batch, self.stream: mixed, **_mixed_labels(labels, jnp.where(mixable, kept, 1.0))}


BATCH_TRANSFORMS = {"mixup": MixUp, "cutmix": CutMix}


def _check(transform):
    name = type(transform).__name__.lower()
    if transform.alpha <= 0:
        raise ConfigError(f"{name}.alpha: got {transform.alpha}, expected more than 0")
    if not 0 <= transform.probability <= 1:
        raise ConfigError(f"{name}.probability: got {transform.probability}, expected 0 to 1")
    for label, classes in transform.labels.items():
        if classes < 1:
            raise ConfigError(f"{name}.labels.{label}: got {classes}, expected its number of classes")


def _soft_labels(transform, batch):
    """Each label as float32 `[B, N]`; a missing one is a row of -1."""
    soft = {}
    for label, classes in transform.labels.items():
        name = f"{type(transform).__name__.lower()}.labels.{label}"
        if label not in batch:
            raise ConfigError(f"{name}: the batch has no such label")
        value = batch[label]
        if value.ndim == 1:
            rows = jax.nn.one_hot(value, classes, dtype=jnp.float32)
            value = jnp.where((value >= 0)[:, None], rows, -1.0)
        if value.ndim != 2 or value.shape[1] != classes:
            raise ConfigError(f"{name}: is {list(value.shape)} in the batch, expected {classes} classes")
        soft[label] = value.astype(jnp.float32)
    return soft


def _mixed_labels(labels, own):
    """Soft labels `[B, N]` of which the part `own` `[B]` stays with the row's own example."""
    weight = own[:, None]
    return {name: weight * soft + (1 - weight) * _partner(soft) for name, soft in labels.items()}


def _draw(transform, batch, labels, key, streams):
    """lam, and bool `[B]`: the rows that may be mixed with their partners."""
    for stream in streams:
        if stream not in batch:
            raise ConfigError(f"{type(transform).__name__.lower()}.stream: the batch has no '{stream}'")
    key_lam, key_use = jax.random.split(key)
    lam = jax.random.beta(key_lam, transform.alpha, transform.alpha)
    lam = jnp.where(jax.random.bernoulli(key_use, transform.probability), lam, 1.0)
    complete = batch["example_mask"]
    for stream in streams:
        complete &= batch[f"{stream}_present"]
    for soft in labels.values():
        complete &= (soft >= 0).all(axis=1)
    return lam, complete & _partner(complete)


def _float_stream(stream, batch):
    x = batch[stream]
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ConfigError(f"mixup.stream: '{stream}' is {x.dtype}, expected float; use normalise")
    return x


def _partner(x):
    return jnp.roll(x, 1, axis=0)


def _per_row(values, ndim):
    return values.reshape(-1, *[1] * (ndim - 1))


def _inside(length, centre, side):
    """bool `[length]`: the places within `side * length` around `centre`, cut off at the ends."""
    half = jnp.round(side * length / 2)
    places = jnp.arange(length)
    return (places >= centre - half) & (places < centre + half)
