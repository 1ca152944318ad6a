"""Variance-invariance-covariance regularisation between two streams (VICReg)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.objectives.objective import Metrics, Objective, count, divide, presence, valid_rows
from mmjax.objectives.pairs import without_padding
from mmjax.types import Batch, Outputs

_EPSILON = 1e-4  # under the root of the variance, as in the paper


def spread_terms(
    values: Float[Array, "B D"], valid: Bool[Array, " B"], target: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The variance and covariance terms of one embedding, over its valid rows.

    Returns:
      variance: mean over dimensions of max(0, target - sqrt(Var + 1e-4)), equation 1.
      covariance: sum over pairs of different dimensions of Cov^2 / D, equation 4.
      Var and Cov divide by n - 1; with fewer than two valid rows both terms are 0.
    """
    rows, width = count(valid), values.shape[1]
    mean = divide(values.sum(axis=0), jnp.full((width,), rows))
    centred = jnp.where(valid[:, None], values - mean, 0.0)
    freedom = jnp.maximum(rows - 1.0, 1.0)
    covariance = jnp.einsum("bi,bj->ij", centred, centred, precision=jax.lax.Precision.HIGHEST) / freedom
    deviation = jnp.sqrt(jnp.diagonal(covariance) + _EPSILON)
    variance_term = jax.nn.relu(target - deviation).mean()
    covariance_term = (jnp.square(covariance) * (1.0 - jnp.eye(width))).sum() / width
    enough = rows >= 2
    return jnp.where(enough, variance_term, 0.0), jnp.where(enough, covariance_term, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VICReg(Objective):
    """Partners agree, while each dimension varies over the batch and repeats no other.

    loss = invariance * s(a, b) + variance * (v(a) + v(b)) + covariance * (c(a) + c(b)), with s the
    mean square difference over rows and dimensions, v and c as in `spread_terms`. Rows that only
    pad the batch, or lack one of `streams`, do not count.

    Source: Bardes et al. 2022, arXiv:2105.04906, equations 1 to 6 and algorithm 1. Equation 5
    writes s without the division by D; algorithm 1, for which the published coefficients hold,
    divides, and so does this.

    Metrics: `invariance`, `variance` and `covariance`, the terms without their coefficients.

    Attributes:
      a, b: outputs `[B, D]`, embeddings that are not normalised.
      streams: the streams that the embeddings come from; a row counts when all are present.
      invariance, variance, covariance: coefficients of the terms.
      deviation: standard deviation that each dimension should at least have.
    """

    a: str
    b: str
    streams: list[str]
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    deviation: float = 1.0

    def reads(self) -> tuple[str, ...]:
        return (self.a, self.b)

    def targets(self) -> tuple[str, ...]:
        return presence(self.streams)

    def __call__(self, outputs: Outputs, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        valid = valid_rows(batch, self.streams)
        a = without_padding(outputs[self.a], valid)
        b = without_padding(outputs[self.b], valid)
        rows = count(valid)
        invariance = divide(jnp.square(a - b).sum(), rows * a.shape[1])
        variance_a, covariance_a = spread_terms(a, valid, self.deviation)
        variance_b, covariance_b = spread_terms(b, valid, self.deviation)
        variance, covariance = variance_a + variance_b, covariance_a + covariance_b
        loss = self.invariance * invariance + self.variance * variance + self.covariance * covariance
        one = jnp.float32(1.0)
        return loss, {
            "invariance": (invariance, one),
            "variance": (variance, one),
            "covariance": (covariance, one),
        }
