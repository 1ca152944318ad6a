"""Sigmoid contrastive loss between two streams (SigLIP)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.objectives.objective import Metrics, count, divide
from mmjax.objectives.pairs import (
    Contrastive,
    best_is_positive,
    by_rows,
    pair_metrics,
    positive_pairs,
    scalar,
    similarities,
)
from mmjax.types import Batch, Outputs


def sigmoid_rows(
    logits: Float[Array, "R S"], positive: Bool[Array, "R S"], valid_columns: Bool[Array, " S"]
) -> Float[Array, " R"]:
    """The loss of each row: -sum_{j valid} log sigmoid(z_ij l_ij), z = 1 for a positive, else -1."""
    losses = -jax.nn.log_sigmoid(jnp.where(positive, logits, -logits))
    return jnp.where(valid_columns[None, :], losses, 0.0).sum(axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sigmoid(Contrastive):
    """Every pair of the batch is classified by itself: belongs together or not.

    loss = -1/|valid| sum_{i, j valid} log sigmoid( z_ij (scale a_i . b_j + bias) ), with z_ij = 1
    for pairs that belong together and -1 for all others. Fields: see `Contrastive`, and `bias`.

    Source: Zhai et al. 2023 (SigLIP), arXiv:2303.15343, section 3.2 (it starts from scale 10 and
    bias -10, so that the many negatives do not dominate the first steps); several positives per row
    are this module's extension.

    Metrics: `a_to_b_accuracy`, `b_to_a_accuracy` (the most similar of the batch is a positive),
    `scale` and, where learned, `bias`.

    Attributes:
      bias: scalar output that is added to the logits; empty adds nothing.
    """

    temperature: float = 0.1
    bias: str = ""

    def reads(self) -> tuple[str, ...]:
        return super().reads() + ((self.bias,) if self.bias else ())

    def __call__(self, outputs: Outputs, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        pairs = self.embeddings(outputs, batch)
        bias = scalar(outputs, self.bias) if self.bias else jnp.float32(0.0)
        if self.by_device():
            losses, a_hits = by_rows(rows_and_hits, pairs.a, pairs.b, pairs, self.chunk_size, bias)
            # The loss is a sum over pairs; only the metric looks from b to a.
            b_hits = by_rows(best_is_positive, pairs.b, pairs.a, pairs, self.chunk_size, bias)
        else:
            logits = pairs.scale * similarities(pairs.a, pairs.b) + bias
            positive = positive_pairs(pairs.valid, pairs.valid, pairs.ids, pairs.ids)
            losses, a_hits = rows_and_hits(logits, positive, pairs.valid)
            b_hits = best_is_positive(logits.T, positive.T, pairs.valid)
        loss = divide(jnp.where(pairs.valid, losses, 0.0).sum(), count(pairs.valid))
        metrics = pair_metrics(a_hits, b_hits, pairs)
        if self.bias:
            metrics["bias"] = (bias, jnp.float32(1.0))
        return loss, metrics


def rows_and_hits(
    logits: Float[Array, "R S"], positive: Bool[Array, "R S"], valid_columns: Bool[Array, " S"]
) -> tuple[Float[Array, " R"], Bool[Array, " R"]]:
    """`sigmoid_rows` and `best_is_positive`."""
    return (
        sigmoid_rows(logits, positive, valid_columns),
        best_is_positive(logits, positive, valid_columns),
    )
