"""What the evaluators of frozen features share.

The features may be any output of one vector per example, or a batch entry: on the raw input they
give the control that a learned representation has to beat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from mmjax.errors import ConfigError
from mmjax.evaluation import metrics
from mmjax.evaluation.classification import accuracy_scores
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.evaluator import Evaluator, present


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe(Evaluator):
    """Base of the evaluators that learn from the features of one data set and are measured on another.

    Attributes:
      features: output or batch entry `[B, ...]`; each example's numbers are one vector.
      also: further ones, whose numbers stand behind those of `features`.
      label: batch entry, a class index `[B]`; examples with -1 do not count.
      train: name of the data set it learns from; its streams go through the `eval` transforms.
      name: in the metrics' names; empty takes the label.
      streams: only examples that have all of these count.
    """

    features: str
    label: str
    train: str = "train"
    name: str = ""
    streams: list[str] = dataclasses.field(default_factory=list)
    also: list[str] = dataclasses.field(default_factory=list)

    def needs(self) -> dict[str, set[str]]:
        entries = {self.features, *self.also, self.label, *present(*self.streams)}
        return {self.train: entries, self.data: entries}

    def examples(self, context: EvalContext, data: str) -> tuple[np.ndarray, np.ndarray]:
        """Features `[n, D]` and labels `[n]` of a data set."""
        return labelled_features(context, data, [self.features, *self.also], self.label, self.streams)


def labelled_features(
    context: EvalContext, data: str, features: list[str], label: str, streams: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Features `[n, D]` float32, joined, and class indices `[n]` of the examples that have a label.

    Raises:
      ConfigError: when the label is not a class index, or no example has one.
    """
    examples = context.collect(data, streams)
    labels = examples[label]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(
            f"evals: the label '{label}' is {labels.dtype} {labels.shape}, "
            "expected one class index per example"
        )
    known = labels >= 0
    if not known.any():
        raise ConfigError(f"evals: no example of '{data}' has the label '{label}' and the streams {streams}")
    vectors = [examples[name][known].reshape(known.sum(), -1) for name in features]
    return np.concatenate(vectors, axis=1).astype(np.float32), labels[known]


def probe_scores(group: str, labels: np.ndarray, predictions: np.ndarray) -> Iterator[tuple[str, float]]:
    """`<group>/accuracy` (with `_low`, `_high`) and `<group>/f1_macro`, of class indices `[n]`."""
    classes = int(max(labels.max(), predictions.max())) + 1
    scores = accuracy_scores(predictions == labels)
    scores["f1_macro"] = metrics.class_scores(labels, predictions, classes).macro()["f1"]
    for name, value in scores.items():
        yield f"{group}/{name}", value
