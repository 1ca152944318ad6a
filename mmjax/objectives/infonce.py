"""Softmax contrastive loss between two streams (InfoNCE)."""

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
    similarities,
)
from mmjax.types import Batch, Outputs


def infonce_rows(
    logits: Float[Array, "R S"], positive: Bool[Array, "R S"], valid_columns: Bool[Array, " S"]
) -> Float[Array, " R"]:
    """The loss of each row: cross entropy with a target uniform over the row's positives.

    With P(i) the positives of row i, all of them valid columns, and l the logits:

        loss_i = -1/|P(i)| sum_{p in P(i)} log( exp(l_ip) / sum_{j valid} exp(l_ij) )

    which is L_out of Khosla et al. 2020, equation 2, between two sets. With one positive it is
    InfoNCE. A row without positives has loss 0.
    """
    # Finite, so that a row without valid columns has no NaN in its gradient.
    hidden = jnp.float32(jnp.finfo(jnp.float32).min)
    log_probabilities = jax.nn.log_softmax(jnp.where(valid_columns[None, :], logits, hidden), axis=1)
    total = jnp.where(positive, -log_probabilities, 0.0).sum(axis=1)
    return divide(total, positive.sum(axis=1, dtype=jnp.float32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoNCE(Contrastive):
    """Each embedding of one stream picks its partner among all of the other, and the reverse.

    loss = 1/2 (mean_i loss_i of a against b + mean_i loss_i of b against a), with logits
    scale * a b^T and the loss of a row as in `infonce_rows`. Fields: see `Contrastive`.

    Sources: InfoNCE: van den Oord et al. 2018, arXiv:1807.03748, equation 4; symmetric, with a
    learned scale: Radford et al. 2021 (CLIP), arXiv:2103.00020, figure 3; several positives: Khosla
    et al. 2020 (SupCon), arXiv:2004.11362, equation 2.

    Metrics: `a_to_b_accuracy`, `b_to_a_accuracy` (the most similar of the batch is a positive) and
    `scale`.
    """

    def __call__(self, outputs: Outputs, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        pairs = self.embeddings(outputs, batch)
        if self.by_device():
            a_to_b, a_hits = by_rows(rows_and_hits, pairs.a, pairs.b, pairs, self.chunk_size)
            b_to_a, b_hits = by_rows(rows_and_hits, pairs.b, pairs.a, pairs, self.chunk_size)
        else:
            logits = pairs.scale * similarities(pairs.a, pairs.b)
            positive = positive_pairs(pairs.valid, pairs.valid, pairs.ids, pairs.ids)
            a_to_b, a_hits = rows_and_hits(logits, positive, pairs.valid)
            b_to_a, b_hits = rows_and_hits(logits.T, positive.T, pairs.valid)
        loss = divide(0.5 * (a_to_b + b_to_a).sum(), count(pairs.valid))
        return loss, pair_metrics(a_hits, b_hits, pairs)


def rows_and_hits(
    logits: Float[Array, "R S"], positive: Bool[Array, "R S"], valid_columns: Bool[Array, " S"]
) -> tuple[Float[Array, " R"], Bool[Array, " R"]]:
    """`infonce_rows` and `best_is_positive`."""
    return (
        infonce_rows(logits, positive, valid_columns),
        best_is_positive(logits, positive, valid_columns),
    )
