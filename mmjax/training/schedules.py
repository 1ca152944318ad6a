"""Durations in steps, and learning rates over a run."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from mmjax.errors import ConfigError

UNITS = ("steps", "epochs", "examples", "percent")

# (section, name, where=...) -> steps or None: `to_steps` with everything else bound.
ToSteps = Callable[..., int | None]


def to_steps(
    section: Mapping[str, Any],
    name: str,
    *,
    batch_size: int,
    train_examples: int,
    total_steps: int | None = None,
    where: str = "",
) -> int | None:
    """The duration `name` of a section, in steps.

    Args:
      section: holds at most one of `{name}_steps`, `{name}_epochs`, `{name}_examples`,
        `{name}_percent` (0 to 100, of the whole run); a None counts as absent.
      name: such as 'total', 'warmup' or 'every'.
      batch_size: B, examples in a step.
      train_examples: examples in an epoch.
      total_steps: length of the run, for `_percent`.
      where: the section's own key, for messages.

    Returns:
      Whole steps, rounded up so that what is not zero is at least one step; None where none of the
      keys is set.

    Raises:
      ConfigError: on more than one key, a negative value, or a percentage of a run without length.
    """
    keys = [f"{name}_{unit}" for unit in UNITS]
    prefix = f"{where}." if where else ""
    given = {prefix + key: section[key] for key in keys if section.get(key) is not None}
    if not given:
        return None
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are both set; set one of them, the others to none")
    ((key, value),) = given.items()
    if value < 0 or (key.endswith("_percent") and value > 100):
        expected = "0 to 100" if key.endswith("_percent") else "0 or more"
        raise ConfigError(f"{key}: got {value}, expected {expected}")
    if key.endswith("_steps"):
        return int(value)
    if key.endswith("_percent"):
        if total_steps is None:
            raise ConfigError(f"{key}: the run has no length to take a percentage of; give steps or epochs")
        return _ceil(value / 100 * total_steps)
    return _ceil(value * (train_examples if key.endswith("_epochs") else 1) / batch_size)


def _ceil(steps: float) -> int:
    return math.ceil(steps - 1e-6)  # 0.1 * 30 is 3.0000000000000004 and means 3


@dataclasses.dataclass(frozen=True)
class Schedule(abc.ABC):
    """A learning rate over the run: a linear warm-up from 0, then what the subclass says.

    peak: learning rate after the warm-up.
    warmup_*: at most one; none starts at the peak.
    """

    peak: float
    warmup_steps: int | None = None
    warmup_epochs: float | None = None
    warmup_examples: int | None = None
    warmup_percent: float | None = None

    def make(self, total_steps: int, to_steps: ToSteps) -> optax.Schedule:
        """The function from the number of updates already made to the learning rate.

        Args:
          total_steps: length of the run; 0 has no warm-up or decay.
          to_steps: reads a duration of this component, see the function of that name.

        Raises:
          ConfigError: where warm-up (and cool-down) do not fit into the run.
        """
        warmup = to_steps(dataclasses.asdict(self), "warmup", where="optimizer.schedule") or 0
        if not total_steps:  # a run that trains nothing asks for no rate
            return optax.constant_schedule(self.peak)
        if warmup >= total_steps:
            raise ConfigError(
                f"optimizer.schedule: warm-up takes {warmup} of {total_steps} steps; expected fewer"
            )
        after = self._after_warmup(total_steps - warmup, warmup, to_steps)
        if not warmup:
            return after
        return optax.join_schedules([optax.linear_schedule(0.0, self.peak, warmup), after], [warmup])

    @abc.abstractmethod
    def _after_warmup(self, steps: int, warmup: int, to_steps: ToSteps) -> optax.Schedule:
        """The rate from the number of updates made since the warm-up; `steps` of them are left."""


@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
    """Stays at the peak."""

    def _after_warmup(self, steps, warmup, to_steps):
        return optax.constant_schedule(self.peak)


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine down to `final` x peak (Loshchilov and Hutter 2017, arXiv:1608.03983)."""

    final: float = 0.0

    def _after_warmup(self, steps, warmup, to_steps):
        return optax.cosine_decay_schedule(self.peak, steps, alpha=self.final)


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """A straight line down to `final` x peak."""

    final: float = 0.0

    def _after_warmup(self, steps, warmup, to_steps):
        return optax.linear_schedule(self.peak, self.final * self.peak, steps)


@dataclasses.dataclass(frozen=True)
class ReciprocalSqrt(Schedule):
    """peak / sqrt(1 + t / timescale), t steps after warm-up, and a linear cool-down at the end.

    It does not depend on the length of the run until the cool-down, so a run can be prolonged (Zhai
    et al. 2022, arXiv:2106.04560, section 3.5).

    timescale: t at which the rate is peak / sqrt(2), in steps.
    cooldown_*: at most one; none has no cool-down.
    final: where the cool-down ends, as a fraction of where it began.
    """

    timescale: int = 10_000
    cooldown_steps: int | None = None
    cooldown_epochs: float | None = None
    cooldown_examples: int | None = None
    cooldown_percent: float | None = None
    final: float = 0.0

    def _after_warmup(self, steps, warmup, to_steps):
        cooldown = to_steps(dataclasses.asdict(self), "cooldown", where="optimizer.schedule") or 0
        if cooldown > steps:
            raise ConfigError(
                f"optimizer.schedule: warm-up ({warmup}) and cool-down ({cooldown}) take more than the "
                f"{steps + warmup} steps of the run"
            )

        def rate(count):
            left = jnp.clip((steps - count) / max(cooldown, 1), 0.0, 1.0) if cooldown else 1.0
            root = jnp.sqrt(1.0 + jnp.minimum(count, steps - cooldown) / self.timescale)
            return self.peak / root * (self.final + (1.0 - self.final) * left)

        return rate


SCHEDULES = {
    "constant": Constant,
    "cosine": Cosine,
    "linear": Linear,
    "rsqrt": ReciprocalSqrt,
}
