"""Objectives: what a model is trained for, chosen by name in `objectives` of a config.

A new objective is a file here and a line in the table.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.objectives.comm import CoMM
from mmjax.objectives.cross_entropy import CrossEntropy
from mmjax.objectives.infonce import InfoNCE
from mmjax.objectives.mse import MeanSquaredError
from mmjax.objectives.nt_xent import NTXent
from mmjax.objectives.objective import MeanObjective, Metrics, Objective, check, divide
from mmjax.objectives.sigmoid import Sigmoid
from mmjax.objectives.vicreg import VICReg
from mmjax.types import Batch, Outputs

OBJECTIVES = {
    "comm": CoMM,
    "cross_entropy": CrossEntropy,
    "infonce": InfoNCE,
    "mse": MeanSquaredError,
    "nt_xent": NTXent,
    "sigmoid": Sigmoid,
    "vicreg": VICReg,
}

__all__ = [
    "OBJECTIVES",
    "MeanObjective",
    "Metrics",
    "Objective",
    "check",
    "combine",
    "losses_of_part",
    "total_loss",
]


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
    losses, metrics = {}, {}
    for name, objective in objectives.items():
        losses[name], own = objective(outputs, batch)
        metrics |= {f"{name}/{key}": value for key, value in own.items()}
    return combine(objectives, losses, metrics)


def combine(
    objectives: Mapping[str, Objective], losses: Mapping[str, Float[Array, ""]], metrics: Metrics
) -> tuple[Float[Array, ""], Metrics]:
    """The total and all metrics, as `total_loss` gives them.

    Args:
      objectives: by name.
      losses: of each, without its weight.
      metrics: their own, '<name>/<metric>'.
    """
    total, one = jnp.float32(0.0), jnp.float32(1.0)
    for name, objective in objectives.items():
        total = total + objective.weight * losses[name]
    losses = {f"{name}/loss": (loss, one) for name, loss in losses.items()}
    return total, {"loss": (total, one), **losses, **metrics}


def losses_of_part(
    objectives: Mapping[str, MeanObjective],
    outputs: Outputs,
    part: Batch,
    numbers: Mapping[str, Float[Array, ""]],
) -> tuple[dict[str, Float[Array, ""]], Metrics]:
    """What a part of a batch adds to the losses and metrics that `combine` takes.

    Args:
      objectives: by name.
      outputs: of the part.
      part: rows of the batch.
      numbers: name -> what the whole batch's sum is divided by, see `MeanObjective.terms`.
    """
    losses, metrics = {}, {}
    for name, objective in objectives.items():
        total, _, own = objective.terms(outputs, part)
        losses[name] = divide(total, numbers[name])
        metrics |= {f"{name}/{key}": value for key, value in own.items()}
    return losses, metrics
