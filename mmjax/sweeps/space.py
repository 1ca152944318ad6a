"""The words a search space is declared with, in a config file.

    from mmjax.sweeps.space import choice, integers, log_uniform, uniform

    def search_space():
        return {
            "optimizer.schedule.peak": log_uniform(1e-4, 1e-2),
            "optimizer.method.weight_decay": uniform(0.0, 0.1),
            "model.fusion.depth": integers(1, 4),
            "batch_size": choice([32, 64, 128]),
        }

A dimension maps the unit interval onto its values, so that every sampler may work on [0, 1).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from mmjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
      low, high: the ends.
      log: equal ratios are equally likely, not equal differences.
      whole: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def check(self, key: str) -> None:
        """Raises a `ConfigError`, naming `key`, where this is no range."""
        for end in (self.low, self.high):
            kinds = (int,) if self.whole else (int, float)
            if isinstance(end, bool) or not isinstance(end, kinds) or not math.isfinite(end):
                expected = "whole numbers" if self.whole else "numbers"
                raise ConfigError(f"search space: {key}: got the end {end!r}, expected {expected}")
        if not self.low < self.high:
            raise ConfigError(
                f"search space: {key}: got {self.low:g} to {self.high:g}, expected a low end below the high"
            )
        if self.log and self.low <= 0:
            raise ConfigError(
                f"search space: {key}: got {self.low:g} to {self.high:g} on a logarithmic scale, expected "
                "more than 0"
            )

    def from_unit(self, unit: float) -> int | float:
        """The value at `unit`, in [0, 1]."""
        # Each whole number gets an interval of its own.
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        if self.log:
            value = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
        else:
            value = low + unit * (high - low)
        value = min(max(value, self.low), self.high)
        return min(max(round(value), self.low), self.high) if self.whole else value

    def to_unit(self, value: float) -> float:
        """Where a value stands in [0, 1]."""
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        if self.log:
            return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        return (value - low) / (high - low)

    def values(self) -> list[Any] | None:
        """All values, where there are finitely many: those a grid tries."""
        return list(range(int(self.low), int(self.high) + 1)) if self.whole else None

    def edges(self) -> list[Any]:
        """Values that stand for all when keys and types are checked."""
        if self.whole:
            return [self.low, self.high]
        # Fractions, also where the ends are written as whole numbers: what samplers give are fractions.
        return [float(self.low), float(self.from_unit(0.5)), float(self.high)]


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values: text, numbers, true or false, none, lists, or mappings."""

    options: tuple[Any, ...]

    def check(self, key: str) -> None:
        """Raises a `ConfigError`, naming `key`, where there is nothing to choose."""
        if not self.options:
            raise ConfigError(f"search space: {key}: has no values to choose from")
        written = [plain_json(value, f"search space: {key}") for value in self.options]
        if len(set(written)) < len(written):
            raise ConfigError(f"search space: {key}: a value is there twice; name each once")

    def values(self) -> list[Any]:
        """All values."""
        return list(self.options)

    def edges(self) -> list[Any]:
        """All values."""
        return list(self.options)


Dimension: TypeAlias = Range | Choice


def uniform(low: float, high: float) -> Range:
    """Any number from `low` to `high`."""
    return Range(low, high)


def log_uniform(low: float, high: float) -> Range:
    """Any positive number from `low` to `high`; each decade is equally likely."""
    return Range(low, high, log=True)


def integers(low: int, high: int, *, log: bool = False) -> Range:
    """A whole number from `low` to `high`, both included."""
    return Range(low, high, log=log, whole=True)


def choice(options: Sequence[Any]) -> Choice:
    """One of the options, which have no order."""
    return Choice(tuple(options))


def check_space(space: Any) -> dict[str, Dimension]:
    """A declared search space; `ConfigError` where it is none, is empty or has a wrong distribution."""
    if not isinstance(space, Mapping):
        raise ConfigError(
            f"search_space(): gives a {type(space).__name__}, expected a mapping of keys to distributions"
        )
    if not space:
        raise ConfigError("search_space(): is empty; name at least one config key with its distribution")
    for key, dimension in space.items():
        if not isinstance(dimension, Range | Choice):
            raise ConfigError(
                f"search space: {key}: got {dimension!r}, expected uniform, log_uniform, integers or choice "
                "of mmjax.sweeps.space"
            )
        dimension.check(str(key))
    return dict(space)


def to_json(space: Mapping[str, Dimension]) -> dict[str, dict[str, Any]]:
    """A space as plain data."""
    return {key: _described(dimension) for key, dimension in space.items()}


def _described(dimension: Dimension) -> dict[str, Any]:
    if isinstance(dimension, Choice):
        return {"type": "choice", "options": list(dimension.options)}
    return {"type": "range", **dataclasses.asdict(dimension)}


def from_json(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Dimension]:
    """What `to_json` described, by key: samplers draw in this order, which a file need not keep."""
    space: dict[str, Dimension] = {}
    for key, fields in sorted(described.items()):
        fields = dict(fields)
        kind = fields.pop("type")
        space[key] = choice(fields["options"]) if kind == "choice" else Range(**fields)
    return space


def plain_json(value: Any, where: str) -> str:
    """A value that a config may hold, as JSON text; `ConfigError`, naming `where`, for any other."""
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{where}: got {value!r} ({type(value).__name__}), expected text, a finite number, true or "
            "false, none, a list or a mapping"
        ) from None
