"""What every objective has in common: its weight, what it reads, and which rows count.

An objective is a frozen dataclass that is called with the model's outputs and the batch, both
global arrays, and returns a loss and additive metrics. The sharding of the arrays is the caller's
business: the formulas are those of one device, and XLA adds the communication, except where an
objective asks `mmjax.parallel.collectives` for it.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Collection, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.components import suggestion
from mmjax.errors import ConfigError
from mmjax.types import Batch, Outputs

# Name -> (sum, count), both float32 scalars; a mean over any number of batches is the quotient of
# the added parts.
Metrics: TypeAlias = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective(abc.ABC):
    """Base of the objectives.

    Attributes:
      weight: factor of this loss in the total.
    """

    weight: float = 1.0

    @abc.abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Names of the model's outputs it needs."""

    @abc.abstractmethod
    def targets(self) -> tuple[str, ...]:
        """Names of the batch entries it needs, besides 'example_mask'."""

    @abc.abstractmethod
    def __call__(self, outputs: Outputs, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        """The loss (without `weight`) and metrics; zero where no row counts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanObjective(Objective):
    """Base of the objectives whose loss is a mean over rows, positions or elements.

    No example sees another, so a batch may be taken in parts, see `mmjax.training.gradients`.
    """

    @abc.abstractmethod
    def terms(self, outputs: Outputs, batch: Batch) -> tuple[Float[Array, ""], Float[Array, ""], Metrics]:
        """The sum of the losses, what it is to be divided by, and metrics.

        All of them add up: those of a batch are the sums of those of its parts. What is divided by
        depends on the batch and on the shapes of the outputs, never on what they hold.
        """

    def __call__(self, outputs: Outputs, batch: Batch) -> tuple[Float[Array, ""], Metrics]:
        total, number, metrics = self.terms(outputs, batch)
        return divide(total, number), metrics


def check(objectives: Mapping[str, Objective], outputs: Collection[str], batch: Collection[str]) -> None:
    """Whether the model and the data give all that the objectives read.

    Args:
      objectives: by name.
      outputs: names of the model's outputs.
      batch: names of the batch entries.

    Raises:
      ConfigError: naming the first entry that is not there, and the nearest one that is.
    """
    for name, objective in objectives.items():
        for needed, known, whose in (
            (objective.reads(), outputs, "the model's outputs are"),
            (objective.targets(), batch, "the batch has"),
        ):
            for entry in needed:
                if entry not in known:
                    raise ConfigError(
                        f"objectives.{name}: reads '{entry}', which is not there{suggestion(entry, known)}; "
                        f"{whose}: {', '.join(sorted(known))}"
                    )


def valid_rows(batch: Batch, streams: Collection[str]) -> Bool[Array, " B"]:
    """The rows that count: real examples (no padding) that have every one of `streams`."""
    valid = batch["example_mask"]
    for stream in streams:
        valid = valid & batch[f"{stream}_present"]
    return valid


def presence(streams: Collection[str]) -> tuple[str, ...]:
    """The batch entries that `valid_rows` reads for `streams`."""
    return tuple(f"{stream}_present" for stream in streams)


def divide(total: Float[Array, "*s"], count: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """total / count, and 0 (with zero gradient) where the count is 0."""
    return jnp.where(count == 0, 0.0, total / jnp.where(count == 0, 1.0, count))


def count(mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """How many entries of `mask` are True, as float32."""
    return mask.sum(dtype=jnp.float32)
