"""What every evaluator has in common: the data it reads, when it is due, how its metrics are named."""

from __future__ import annotations

import abc
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmjax.evaluation.context import EvalContext


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator(abc.ABC):
    """Base of the evaluators.

    Attributes:
      data: name of the data set it measures on, one of `data.eval`, or 'train'.
      prefix: put in front of the names of its metrics and artifacts, 'degraded' giving
        'degraded/classification/...'; for a second evaluator of the same kind on other data.
      every_steps, every_epochs, every_examples, every_percent: how often it runs during training,
        at most one; with none it runs only at the end.
    """

    data: str
    prefix: str = ""
    every_steps: int | None = None
    every_epochs: float | None = None
    every_examples: int | None = None
    every_percent: float | None = None

    def prepare(self, data_dir: pathlib.Path) -> None:  # noqa: B027, it has a default
        """Fetches what it needs besides the data into `data_dir`, once; called before a run.

        Raises:
          ConfigError: there is no such thing.
          DataError: it cannot be had.
        """

    @abc.abstractmethod
    def needs(self) -> dict[str, set[str]]:
        """Data set -> names of the outputs and batch entries that it reads there."""

    @abc.abstractmethod
    def groups(self) -> tuple[str, ...]:
        """What its metrics' names are before the last '/', without the prefix.

        No two evaluators of a run may have one (and the prefix) in common.
        """

    @abc.abstractmethod
    def evaluate(self, context: EvalContext) -> Iterator[tuple[str, float]]:
        """Yields (name without the prefix, value); NaN where the data does not define the number."""

    def full_name(self, name: str) -> str:
        """`name` with the prefix."""
        return f"{self.prefix}/{name}" if self.prefix else name


def present(*streams: str) -> set[str]:
    """The batch entries that say whether a row has these streams."""
    return {f"{stream}_present" for stream in streams}
