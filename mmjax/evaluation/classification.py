"""How good a classifier is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmjax.errors import ConfigError
from mmjax.evaluation import metrics
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.evaluator import Evaluator, present


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Evaluator):
    """`classification/<head>/...` from the logits of a head.

    One right class per example: `accuracy` with its 95% bootstrap interval `accuracy_low`,
    `accuracy_high`; `precision_macro`, `recall_macro`, `f1_macro`, `f1_micro`; `auroc` (one class
    against the rest, mean over the classes that have examples and counter-examples); `ece`
    (expected calibration error, 15 bins).

    `multi_label`: `mAP`, `auroc`, and precision, recall and F1 as above, a class being predicted
    when its logit is above 0.

    Artifacts: `confusion_matrix` (with the numbers of each class) and `calibration`, or `classes`
    for `multi_label`.

    Attributes:
      head: output `[B, N]`, logits.
      label: batch entry: class index `[B]`, or 0 and 1 `[B, N]` for `multi_label`; what is -1 or NaN
        is unknown and does not count.
      multi_label: whether any number of classes may be right at once.
      streams: only examples that have all of these count.
      bootstrap_samples: draws for the interval; 0 leaves it out.
    """

    head: str
    label: str
    multi_label: bool = False
    streams: list[str] = dataclasses.field(default_factory=list)
    bootstrap_samples: int = 1000

    def needs(self) -> dict[str, set[str]]:
        return {self.data: {self.head, self.label, *present(*self.streams)}}

    def groups(self) -> tuple[str, ...]:
        return (f"classification/{self.head}",)

    def evaluate(self, context: EvalContext) -> Iterator[tuple[str, float]]:
        examples = context.collect(self.data, self.streams)
        logits, labels = examples[self.head], examples[self.label]
        self._check(logits, labels)
        measure = self._several_labels if self.multi_label else self._one_label
        for name, value in measure(context, logits, labels).items():
            yield f"classification/{self.head}/{name}", value

    def _one_label(self, context, logits, labels) -> dict[str, float]:
        logits, labels = logits[labels >= 0], labels[labels >= 0]
        classes = logits.shape[1]
        probabilities = metrics.probabilities(logits)
        predictions = logits.argmax(axis=1)
        scores = metrics.class_scores(labels, predictions, classes)
        one_hot = labels[:, None] == np.arange(classes)
        auroc = metrics.auroc(one_hot, probabilities, np.ones_like(one_hot))
        calibration = metrics.calibration(probabilities.max(axis=1), predictions == labels)
        names = context.class_names(self.label, classes)
        save_confusion_matrix(
            context, self.full_name(f"classification/{self.head}"), names, labels, predictions, auroc
        )
        context.save(
            self.full_name(f"classification/{self.head}/calibration"),
            {
                "kind": "calibration",
                "data": self.data,
                "confidence": calibration.confidence,
                "accuracy": calibration.accuracy,
                "count": calibration.count,
                "ece": calibration.error,
            },
        )
        return {
            **accuracy_scores(predictions == labels, self.bootstrap_samples),
            **{f"{name}_macro": value for name, value in scores.macro().items()},
            "f1_micro": metrics.micro_f1(labels, predictions),
            "auroc": metrics.mean_defined(auroc),
            "ece": calibration.error,
        }

    def _several_labels(self, context, logits, labels) -> dict[str, float]:
        known = labels >= 0
        # An unknown entry as a wrong one that is not predicted: neither precision nor recall sees it.
        right, predicted = (labels > 0.5) & known, (logits > 0) & known
        scores = metrics.multi_label_scores(right, predicted)
        auroc = metrics.auroc(right, logits, known)
        precision = metrics.average_precision(right, logits, known)
        names = context.class_names(self.label, logits.shape[1])
        context.save(
            self.full_name(f"classification/{self.head}/classes"),
            {
                "kind": "classes",
                "data": self.data,
                "classes": class_rows(names, scores, auroc=auroc, average_precision=precision),
            },
        )
        return {
            "mAP": metrics.mean_defined(precision),
            "auroc": metrics.mean_defined(auroc),
            **{f"{name}_macro": value for name, value in scores.macro().items()},
            "f1_micro": metrics.micro_f1(right, predicted),
        }

    def _check(self, logits, labels) -> None:
        if self.multi_label:
            wrong, expected = labels.shape != logits.shape, f"{logits.shape}, since multi_label is true"
        else:
            whole = np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1
            wrong, expected = not whole, "whole numbers, one per example (or multi_label: true)"
        if logits.ndim != 2 or wrong:
            raise ConfigError(
                f"classification: the label '{self.label}' is {labels.dtype} {labels.shape} for the logits "
                f"'{self.head}' {logits.shape}; expected {expected}"
            )
        if not (labels >= 0).any():
            raise ConfigError(f"classification: no example of '{self.data}' has the label '{self.label}'")
        if not self.multi_label and labels.max() >= logits.shape[1]:
            raise ConfigError(
                f"classification: the label '{self.label}' of '{self.data}' goes up to {labels.max()}, but "
                f"'{self.head}' has {logits.shape[1]} classes; set num_classes of the head"
            )


def accuracy_scores(correct: np.ndarray, bootstrap_samples: int = 1000) -> dict[str, float]:
    """`accuracy`, and `accuracy_low`, `accuracy_high` of its 95% bootstrap interval.

    Args:
      correct: bool `[n]`.
      bootstrap_samples: draws for the interval; 0 leaves it out.
    """
    scores = {"accuracy": float(correct.mean()) if len(correct) else float("nan")}
    if bootstrap_samples:
        low, high = metrics.bootstrap_interval(correct, samples=bootstrap_samples)
        scores |= {"accuracy_low": low, "accuracy_high": high}
    return scores


def save_confusion_matrix(
    context: EvalContext,
    name: str,
    class_names: list[str],
    labels: np.ndarray,
    predictions: np.ndarray,
    auroc: np.ndarray | None = None,
) -> None:
    """Saves `<name>/confusion_matrix`: the counts, and the numbers of each class.

    Args:
      context: of the round.
      name: full name of the group of metrics.
      class_names: N names.
      labels, predictions: class indices `[n]`.
      auroc: `[N]`, where there are scores to take it from.
    """
    scores = metrics.class_scores(labels, predictions, len(class_names))
    context.save(
        f"{name}/confusion_matrix",
        {
            "kind": "confusion_matrix",
            "labels": class_names,
            "matrix": metrics.confusion_matrix(labels, predictions, len(class_names)),
            "classes": class_rows(class_names, scores, **({} if auroc is None else {"auroc": auroc})),
        },
    )


def class_rows(names: list[str], scores: metrics.ClassScores, **more: np.ndarray) -> list[dict[str, Any]]:
    """One dictionary per class: its name, its scores, and entry c of each further array `[N]`."""
    columns = {**scores._asdict(), **more}
    return [
        {"name": name, **{key: values[c] for key, values in columns.items()}} for c, name in enumerate(names)
    ]
