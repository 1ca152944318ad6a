"""Classifiers: on one entry, or on several with their decisions combined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.heads.hidden import HiddenLayers
from mmjax.types import Features


class Classifier(nn.Module):
    """A linear classifier on the pooled vector, or an MLP.

    Attributes:
      label: what in the batch it predicts.
      reads: entry it reads.
      num_classes: N; 0 is filled from the data's class names of `label`. With N = 2 and no hidden
        layers it is a logistic regression.
      hidden: widths of hidden layers.
      dropout: rate on the pooled vector and after each hidden layer, in training.
      dtype: what it computes in; the logits are float32.
    """

    label: str
    reads: str = "fused"
    num_classes: int = 0
    hidden: Sequence[int] = ()
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Float[Array, "B N"]:
        """Logits."""
        x = nn.Dropout(self.dropout, deterministic=not train)(features[self.reads].pooled)
        x = HiddenLayers(self.hidden, self.dropout, self.dtype, name="hidden")(x, train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="logits")(x).astype(jnp.float32)


class LateClassifier(nn.Module):
    """Late fusion: a classifier per entry, whose decisions are combined (Kittler et al. 1998, TPAMI 20(3)).

    With l_i the logits from entry i and P the entries an example has, the output is

        mean_probability       logits of 1/|P| sum_{i in P} p(l_i)    the sum rule
        mean_logit             1/|P| sum_{i in P} l_i
        product                sum_{i in P} l_i, that is logits of prod_{i in P} p(l_i), normalised:
                               a product of experts (Hinton 2002, Neural Computation 14(8))
        weighted_probability   logits of sum_{i in P} w_i p(l_i)
        weighted_product       logits of prod_{i in P} p(l_i)^w_i, normalised: a product of experts
                               with exponents (Cao and Fleet 2014, arXiv:1410.7827)

    where p is the softmax over classes, or the sigmoid of each, and w_i = exp(a_i) / sum_{j in P}
    exp(a_j) are learned weights, of sum 1 over the entries that the example has. They start equal, as
    `mean_probability` and `mean_logit`. An example with one entry gets that entry's logits (of a
    softmax, up to a constant); a row without any gets zeros.

    Attributes:
      label: what in the batch they predict.
      reads: entries, each with its own linear classifier.
      num_classes: N; 0 is filled from the data's class names of `label`.
      combine: as above.
      probability: 'softmax' for classes that exclude each other, 'sigmoid' where several may be
        right at once; only the sums of probabilities depend on it.
      dropout: rate on the pooled vectors, in training.
      dtype: what it computes in; the logits are float32.
    """

    label: str
    reads: Sequence[str]
    num_classes: int = 0
    combine: Literal[
        "mean_probability", "mean_logit", "product", "weighted_probability", "weighted_product"
    ] = "mean_probability"
    probability: Literal["softmax", "sigmoid"] = "softmax"
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Features], *, train: bool = False) -> Float[Array, "B N"]:
        """Logits."""
        logits = []
        for name in self.reads:
            x = nn.Dropout(self.dropout, deterministic=not train)(features[name].pooled)
            logits.append(nn.Dense(self.num_classes, dtype=self.dtype, name=f"{name}_logits")(x))
        present = jnp.stack([features[name].present for name in self.reads], axis=1)
        return self._combine(jnp.stack(logits, axis=1).astype(jnp.float32), present)

    def _combine(self, logits: Float[Array, "B M N"], present: Bool[Array, "B M"]) -> Float[Array, "B N"]:
        nothing = ~present.any(axis=1, keepdims=True)
        where = (present | nothing)[:, :, None]  # a mean over nothing would be NaN
        if self.combine == "product":
            combined = logits.sum(axis=1, where=where)
        else:
            weights = self._weights(where)
            if self.combine in ("mean_logit", "weighted_product"):
                combined = (weights * logits).sum(axis=1, where=where)
            elif self.probability == "softmax":
                combined = _log_mean_exp(nn.log_softmax(logits), weights)
            else:
                yes, no = nn.log_sigmoid(logits), nn.log_sigmoid(-logits)
                combined = _log_mean_exp(yes, weights) - _log_mean_exp(no, weights)
        return jnp.where(nothing, 0.0, combined)

    def _weights(self, where: Bool[Array, "B M 1"]) -> Float[Array, "B M 1"]:
        """Of sum 1 over the entries in `where`, 0 elsewhere; learned or equal."""
        scores = jnp.zeros(len(self.reads), jnp.float32)
        if self.combine.startswith("weighted"):
            scores = jnp.stack(
                [self.param(f"{name}_weight", nn.initializers.zeros, (), jnp.float32) for name in self.reads]
            )
        return nn.softmax(jnp.broadcast_to(scores[:, None], where.shape), axis=1, where=where)


def _log_mean_exp(x, weights):
    return jax.nn.logsumexp(x, axis=1, b=weights)
