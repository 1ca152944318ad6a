"""How far predicted numbers are from the true ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from mmjax.errors import ConfigError
from mmjax.evaluation import metrics
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.evaluator import Evaluator, present


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(Evaluator):
    """`regression/<head>/mse`, `mae`, `r2` and `pearson`, see `metrics.regression_scores`.

    Attributes:
      head: output `[B, K]`, or `[B]`.
      target: batch entry `[B]` or `[B, K]`; an example with a NaN in it does not count.
      streams: only examples that have all of these count.
    """

    head: str
    target: str
    streams: list[str] = dataclasses.field(default_factory=list)

    def needs(self) -> dict[str, set[str]]:
        return {self.data: {self.head, self.target, *present(*self.streams)}}

    def groups(self) -> tuple[str, ...]:
        return (f"regression/{self.head}",)

    def evaluate(self, context: EvalContext) -> Iterator[tuple[str, float]]:
        examples = context.collect(self.data, self.streams)
        predictions, targets = (_columns(examples[name]) for name in (self.head, self.target))
        if predictions.shape != targets.shape:
            raise ConfigError(
                f"regression: the output '{self.head}' has shape {examples[self.head].shape}, the target "
                f"'{self.target}' {examples[self.target].shape}; expected the same, set outputs of the head"
            )
        known = ~np.isnan(targets).any(axis=1)
        for name, value in metrics.regression_scores(targets[known], predictions[known]).items():
            yield f"regression/{self.head}/{name}", value


def _columns(values):
    return values.reshape(len(values), -1).astype(np.float64)
