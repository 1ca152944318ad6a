"""Cross entropy of a classifier: one class, a distribution over classes, or several classes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import ConfigError
from mmjax.objectives.objective import MeanObjective, Metrics, count, presence, valid_rows
from mmjax.types import Batch, Outputs


def index_cross_entropy(
    logits: Float[Array, "*n N"], labels: Int[Array, "*n"], weights: Float[Array, " N"], smoothing: float
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The loss and the weight of each position, for class indices.

        loss_i = -(1 - s) w_y log p_iy - s/N sum_c w_c log p_ic,    weight_i = w_y

    with p = softmax(logits), y the label and s the smoothing (Szegedy et al. 2016, arXiv:1512.00567,
    section 7). An index of N or more gives NaN rather than a loss against the wrong class.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1, mode="fill")[..., 0]
    weight = jnp.take(weights, labels, mode="fill")
    uniform = (weights * log_probabilities).mean(axis=-1)
    return -(1.0 - smoothing) * weight * picked - smoothing * uniform, weight


def soft_cross_entropy(
    logits: Float[Array, "*n N"], labels: Float[Array, "*n N"], weights: Float[Array, " N"], smoothing: float
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The loss and the weight of each position, for labels that are distributions t over classes.

    loss_i = -sum_c w_c q_ic log p_ic,  q = (1 - s) t + s/N,    weight_i = sum_c w_c t_ic
    """
    smoothed = (1.0 - smoothing) * labels + smoothing / logits.shape[-1]
    losses = -(weights * smoothed * jax.nn.log_softmax(logits)).sum(axis=-1)
    return losses, (weights * labels).sum(axis=-1)


def binary_cross_entropy(
    logits: Float[Array, "*n N"], labels: Float[Array, "*n N"], weights: Float[Array, " N"], smoothing: float
) -> tuple[Float[Array, "*n N"], Float[Array, "*n N"]]:
    """The loss and the weight of each position and class, each class being a yes or no.

    loss_ic = -w_c (q log sigmoid(l_ic) + (1 - q) log sigmoid(-l_ic)),  q = (1 - s) t_ic + s/2
    weight_ic = w_c
    """
    smoothed = (1.0 - smoothing) * labels + 0.5 * smoothing
    losses = -smoothed * jax.nn.log_sigmoid(logits) - (1.0 - smoothed) * jax.nn.log_sigmoid(-logits)
    return weights * losses, jnp.broadcast_to(weights, logits.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossEntropy(MeanObjective):
    """loss = sum of the losses / sum of the weights, over all positions that count.

    A position is a row of logits `[B, N]`, or a row and a token of logits `[B, L, N]`. It counts
    when its row is no padding and has all of `streams`, the label is not -1, and '<label>_mask' is
    True where the batch has one. The losses and weights are those of `index_cross_entropy` for
    integer labels without the class axis, of `soft_cross_entropy` for labels of the logits' shape
    (from MixUp, say; a row with a -1 or NaN in it does not count), and of `binary_cross_entropy` for
    `multi_label`, where -1 or NaN leaves out one class of one position.

    Metrics: `accuracy`: how often the highest logit is the label's (highest) class; for
    `multi_label`, how often the sign of a logit is right.

    Attributes:
      logits: output `[B, N]` or `[B, L, N]`.
      label: batch entry.
      multi_label: whether any number of classes may be right at once.
      label_smoothing: s in the formulas, from 0 up to, not including, 1.
      class_weights: w in the formulas, one per class; empty is 1 for all.
      streams: streams that a row must have to count.
    """

    logits: str
    label: str
    multi_label: bool = False
    label_smoothing: float = 0.0
    class_weights: list[float] = dataclasses.field(default_factory=list)
    streams: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"cross_entropy.label_smoothing: got {self.label_smoothing}, expected 0 <= s < 1"
            )

    def reads(self) -> tuple[str, ...]:
        return (self.logits,)

    def targets(self) -> tuple[str, ...]:
        return (self.label, *presence(self.streams))

    def terms(self, outputs: Outputs, batch: Batch) -> tuple[Float[Array, ""], Float[Array, ""], Metrics]:
        logits, labels = outputs[self.logits].astype(jnp.float32), batch[self.label]
        weights, smoothing = self._weights(logits.shape[-1]), self.label_smoothing
        valid = self._valid(logits, batch)
        if self.multi_label and labels.shape == logits.shape:
            valid = valid[..., None] & (labels >= 0)
            labels = jnp.where(valid, labels, 0).astype(jnp.float32)
            losses, weight = binary_cross_entropy(logits, labels, weights, smoothing)
            correct = (logits > 0) == (labels > 0.5)
        elif not self.multi_label and labels.shape == logits.shape:
            valid = valid & (labels >= 0).all(axis=-1)
            labels = jnp.where(valid[..., None], labels, 0).astype(jnp.float32)
            losses, weight = soft_cross_entropy(logits, labels, weights, smoothing)
            correct = logits.argmax(axis=-1) == labels.argmax(axis=-1)
        elif not self.multi_label and labels.shape == logits.shape[:-1] and _is_integer(labels):
            valid = valid & (labels >= 0)
            labels = jnp.where(valid, labels, 0)
            losses, weight = index_cross_entropy(logits, labels, weights, smoothing)
            correct = logits.argmax(axis=-1) == labels
        else:
            raise ConfigError(self._mismatch(logits, labels))
        total, number = jnp.where(valid, losses, 0.0).sum(), jnp.where(valid, weight, 0.0).sum()
        return total, number, {"accuracy": (count(correct & valid), count(valid))}

    def _weights(self, classes: int) -> Float[Array, " N"]:
        if self.class_weights and len(self.class_weights) != classes:
            raise ConfigError(
                f"cross_entropy.class_weights: got {len(self.class_weights)} numbers, expected {classes}, "
                f"one for each class of '{self.logits}'"
            )
        return jnp.array(self.class_weights or [1.0] * classes, jnp.float32)

    def _valid(self, logits, batch) -> Bool[Array, "*n"]:
        valid = valid_rows(batch, self.streams)
        valid = valid.reshape(valid.shape + (1,) * (logits.ndim - 2))
        mask = batch.get(f"{self.label}_mask")
        if mask is not None:
            valid = valid & mask
        return jnp.broadcast_to(valid, logits.shape[:-1])

    def _mismatch(self, logits, labels) -> str:
        shape = tuple(logits.shape)
        expected = f"{shape} (multi-label)" if self.multi_label else f"integers {shape[:-1]}, or {shape}"
        return (
            f"cross_entropy: the logits '{self.logits}' have shape {shape}, the label '{self.label}' is "
            f"{labels.dtype} {tuple(labels.shape)}, expected {expected}"
        )


def _is_integer(array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.integer)
