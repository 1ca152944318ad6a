"""Objectives: what a model is trained for, chosen by name in `objectives` of a config.

A new objective is a file here and a line in the table.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.objectives.cross_entropy import CrossEntropy
from mmjax.objectives.infonce import InfoNCE
from mmjax.objectives.mse import MeanSquaredError
from mmjax.objectives.objective import Metrics, Objective, check
from mmjax.objectives.sigmoid import Sigmoid
from mmjax.objectives.vicreg import VICReg
from mmjax.types import Batch, Outputs

OBJECTIVES = {
    "cross_entropy": CrossEntropy,
    "infonce": InfoNCE,
    "mse": MeanSquaredError,
    "sigmoid": Sigmoid,
    "vicreg": VICReg,
}

__all__ = ["OBJECTIVES", "Metrics", "Objective", "check", "total_loss"]


def total_loss(
    objectives: Mapping[str, Objective], outputs: Outputs, batch: Batch
) -> tuple[Float[Array, ""], Metrics]:
    """The sum of weight * loss over the objectives.

    Args:
      objectives: by the name they have in the config.
      outputs, batch: global arrays; all of the batch, since examples may interact.

    Returns:
      The total as a float32 scalar, and additive metrics (sum, count): 'loss' (the total),
      '<name>/loss' (without its weight) and '<name>/<metric>' for the objective's own.

    Raises:
      ConfigError: when an objective reads what the model or the batch does not have.
    """
    check(objectives, outputs, batch)
    total, one = jnp.float32(0.0), jnp.float32(1.0)
    metrics: Metrics = {}
    for name, objective in objectives.items():
        loss, own = objective(outputs, batch)
        total = total + objective.weight * loss
        metrics[f"{name}/loss"] = (loss, one)
        metrics |= {f"{name}/{key}": value for key, value in own.items()}
    return total, {"loss": (total, one), **metrics}
