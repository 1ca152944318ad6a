"""Softmax contrastive loss between two views, each repelled by all other views (NT-Xent)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.errors import ConfigError
from mmjax.objectives.infonce import infonce_rows
from mmjax.objectives.objective import Metrics, Objective, count, divide, presence, valid_rows
from mmjax.objectives.pairs import best_is_positive, similarities, without_padding
from mmjax.types import Batch, Outputs


def nt_xent(
    a: Float[Array, "B D"], b: Float[Array, "B D"], valid: Bool[Array, " B"], temperature: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The loss, and of how many of the valid rows of both views the most similar one is the partner.

    Over the 2 B rows z = [a; b], with p(i) the other view of row i and t the temperature:

        loss = mean_i  -log( exp(z_i z_p(i) / t) / sum_{j != i} exp(z_i z_j / t) )

    Where `infonce_rows` has the rows of the other view alone in the sum, here are those of its own too.

    Args:
      a, b: embeddings of length one, zeros in the rows that do not count.
      valid: which rows count.
      temperature: t.
    """
    rows, both = jnp.concatenate([a, b]), jnp.concatenate([valid, valid])
    number = jnp.arange(len(rows))
    itself = number[:, None] == number[None, :]
    logits = jnp.where(itself, jnp.finfo(jnp.float32).min, similarities(rows, rows) / temperature)
    partner = jnp.roll(number, len(a))
    positive = (partner[:, None] == number[None, :]) & both[:, None]
    losses = infonce_rows(logits, positive, both)
    return divide(losses.sum(), count(both)), count(best_is_positive(logits, positive, both))


@dataclasses.dataclass(frozen=True, kw_only=True)
class NTXent(Objective):
    """Two views of an example find each other among all views of the batch (SimCLR).

    The loss of `nt_xent`; rows that only pad the batch, or lack one of `streams`, are neither anchors
    nor negatives.

    Source: Chen et al. 2020, arXiv:2002.05709, equation 1 and algorithm 1.

    Metrics: `accuracy` (the most similar of all others is the partner).

    Attributes:
      a, b: outputs `[B, D]`, embeddings of length one, such as 'embedding' and 'second/embedding' of a
        view in `model.views`.
      streams: the streams that the embeddings come from; a row counts when all are present.
      temperature: t.
    """

    a: str
    b: str
    streams: list[str]
    temperature: float = 0.5

    def __post_init__(self):
        check_temperature("nt_xent", self.temperature)

    def reads(self) -> tuple[str, ...]:
        return (self.a, self.b)

    def targets(self) -> tuple[str, ...]:
        return presence(self.streams)

    def __call__(self, outputs: Outputs, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        valid = valid_rows(batch, self.streams)
        a, b = (without_padding(outputs[name], valid) for name in (self.a, self.b))
        loss, hits = nt_xent(a, b, valid, self.temperature)
        return loss, {"accuracy": (hits, 2 * count(valid))}


def check_temperature(objective: str, temperature: float) -> None:
    """Raises ConfigError unless it is above 0."""
    if temperature <= 0:
        raise ConfigError(f"{objective}.temperature: got {temperature}, expected a number above 0")
