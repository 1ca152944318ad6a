"""Metrics of whole splits, on NumPy arrays in memory.

What scikit-learn has comes from scikit-learn, which is imported where it is used, since that takes
seconds. A number that its data does not define (the AUROC of a class without examples) is NaN here;
a mean over classes leaves such classes out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Array = np.ndarray


class ClassScores(NamedTuple):
    """Numbers of each class.

    Attributes:
      precision, recall, f1: `[N]`; 0 where nothing was predicted, or there was nothing to find.
      support: `[N]`, examples of the class.
      predicted: `[N]`, how often it was predicted.
    """

    precision: Float[Array, " N"]
    recall: Float[Array, " N"]
    f1: Float[Array, " N"]
    support: Int[Array, " N"]
    predicted: Int[Array, " N"]

    def macro(self) -> dict[str, float]:
        """Unweighted means over the classes that occur, in the labels or the predictions.

        A class that does not occur at all says nothing about the predictions; scikit-learn leaves
        it out too, unless it is told of it.
        """
        occurs = (self.support + self.predicted) > 0
        if not occurs.any():
            return {name: np.nan for name in ("precision", "recall", "f1")}
        return {name: float(getattr(self, name)[occurs].mean()) for name in ("precision", "recall", "f1")}


def class_scores(labels: Int[Array, " n"], predictions: Int[Array, " n"], classes: int) -> ClassScores:
    """Precision, recall and F1 of each class of a single-label classifier.

    Args:
      labels, predictions: class indices below `classes`.
      classes: N.
    """
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predictions, labels=np.arange(classes), average=None, zero_division=0.0
    )
    return ClassScores(precision, recall, f1, support, np.bincount(predictions, minlength=classes))


def multi_label_scores(labels: Bool[Array, "n N"], predictions: Bool[Array, "n N"]) -> ClassScores:
    """Precision, recall and F1 of each class where any number of classes may be right."""
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, support = precision_recall_fscore_support(
        labels.astype(int), predictions.astype(int), average=None, zero_division=0.0
    )
    return ClassScores(precision, recall, f1, support, predictions.sum(axis=0))


def micro_f1(labels: Array, predictions: Array) -> float:
    """F1 over all decisions together, of class indices `[n]` or bools `[n, N]`.

    With one class per example it equals the accuracy.
    """
    from sklearn.metrics import f1_score

    labels, predictions = (np.asarray(x).astype(int) for x in (labels, predictions))
    return float(f1_score(labels, predictions, average="micro", zero_division=0.0))


def confusion_matrix(
    labels: Int[Array, " n"], predictions: Int[Array, " n"], classes: int
) -> Int[Array, "N N"]:
    """Counts; a row is a true class, a column a predicted one."""
    from sklearn.metrics import confusion_matrix as count_pairs

    return count_pairs(labels, predictions, labels=np.arange(classes))


def auroc(
    labels: Bool[Array, "n N"], scores: Float[Array, "n N"], known: Bool[Array, "n N"]
) -> Float[Array, " N"]:
    """Area under the ROC curve of each class against all others.

    It is the probability that a random positive scores above a random negative, ties counting half
    (Fawcett 2006, "An introduction to ROC analysis", section 7).

    Args:
      labels: which classes are right.
      scores: higher is more likely; only their order counts.
      known: entries that count.

    Returns:
      NaN for a class without a positive or without a negative.
    """
    from sklearn.metrics import roc_auc_score

    return _each_class(roc_auc_score, labels, scores, known, needs_negatives=True)


def average_precision(
    labels: Bool[Array, "n N"], scores: Float[Array, "n N"], known: Bool[Array, "n N"]
) -> Float[Array, " N"]:
    """Average precision of each class: sum over thresholds of (change in recall) * precision.

    Their mean over classes is the mAP of multi-label benchmarks such as AudioSet. There is no
    interpolation between thresholds.

    Args and returns: as `auroc`, except that only a class without a positive is NaN.
    """
    from sklearn.metrics import average_precision_score

    return _each_class(average_precision_score, labels, scores, known, needs_negatives=False)


def _each_class(metric, labels, scores, known, needs_negatives):
    values = np.full(labels.shape[1], np.nan)
    for c in range(labels.shape[1]):
        y, s = labels[known[:, c], c], scores[known[:, c], c]
        if y.any() and not (needs_negatives and y.all()):
            values[c] = metric(y, s)
    return values


def mean_defined(values: Float[Array, " N"]) -> float:
    """The mean of the numbers that are defined; NaN where none is."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


class Calibration(NamedTuple):
    """Confidence against accuracy, in bins of equal width.

    Attributes:
      confidence, accuracy: `[bins]`, means over the examples of the bin; 0 where it has none.
      count: `[bins]`.
      error: the expected calibration error; NaN without examples.
    """

    confidence: Float[Array, " bins"]
    accuracy: Float[Array, " bins"]
    count: Int[Array, " bins"]
    error: float


def calibration(confidence: Float[Array, " n"], correct: Bool[Array, " n"], bins: int = 15) -> Calibration:
    """How far confidence is from accuracy: Guo et al. 2017, arXiv:1706.04599, section 2, equation 3.

    ECE = sum_m |B_m|/n |accuracy(B_m) - confidence(B_m)|, where bin m of M holds the examples with
    confidence in ((m - 1)/M, m/M].

    Args:
      confidence: probability of the predicted class, 0 to 1.
      correct: whether it was right.
      bins: M.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = np.maximum(count, 1)
    mean_confidence = np.bincount(index, weights=confidence, minlength=bins) / filled
    accuracy = np.bincount(index, weights=correct, minlength=bins) / filled
    gaps = np.abs(accuracy - mean_confidence) * count
    error = float(gaps.sum() / len(confidence)) if len(confidence) else float("nan")
    return Calibration(mean_confidence, accuracy, count, error)


def probabilities(logits: Float[Array, "n N"], multi_label: bool = False) -> Float[Array, "n N"]:
    """Softmax over the classes, or the sigmoid of each one, in float64."""
    logits = logits.astype(np.float64)
    if multi_label:
        return 0.5 * (1.0 + np.tanh(0.5 * logits))  # the sigmoid, without overflow
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def bootstrap_interval(
    values: Shaped[Array, " n"],
    statistic: Callable[[Array], float] = np.mean,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over examples (Efron 1979, Annals of Statistics 7(1)).

    The examples are drawn again with replacement; it says how much the number would vary over
    test sets of this size, not over training runs.

    Args:
      values: one per example, such as whether it was right; `[n]`.
      statistic: of an array of values.
      samples: how many times n examples are drawn.
      level: share of the drawn statistics inside the interval.
      seed: of the draws.

    Returns:
      (low, high); NaN without examples.
    """
    values = np.asarray(values)
    if not len(values):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(samples)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def regression_scores(targets: Float[Array, "n K"], predictions: Float[Array, "n K"]) -> dict[str, float]:
    """`mse`, `mae`, `r2` and `pearson`, each a mean over the K numbers.

    r2 = 1 - (sum of squared errors) / (sum of squares around the mean of the targets). A number
    whose targets (for pearson, or predictions) are all equal has no r2 and no pearson; the mean
    leaves it out.
    """
    if not len(targets):
        return dict.fromkeys(("mse", "mae", "r2", "pearson"), float("nan"))
    targets, predictions = targets.astype(np.float64), predictions.astype(np.float64)
    errors = predictions - targets
    centred, centred_predictions = targets - targets.mean(axis=0), predictions - predictions.mean(axis=0)
    spread, own_spread = np.square(centred).sum(axis=0), np.square(centred_predictions).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1.0 - np.square(errors).sum(axis=0) / spread, np.nan)
        pearson = (centred * centred_predictions).sum(axis=0) / np.sqrt(spread * own_spread)
    return {
        "mse": float(np.square(errors).mean()),
        "mae": float(np.abs(errors).mean()),
        "r2": mean_defined(r2),
        "pearson": mean_defined(pearson),
    }


def clustering_scores(labels: Int[Array, " n"], clusters: Int[Array, " n"]) -> dict[str, float]:
    """`nmi` and `ari`: how well clusters agree with classes, whatever they are called.

    nmi: mutual information over the arithmetic mean of the entropies. ari: Hubert and Arabie 1985,
    "Comparing partitions", 0 in expectation for random clusters.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    with warnings.catch_warnings():
        # Many classes of few examples make scikit-learn suspect continuous labels.
        warnings.filterwarnings("ignore", message="The number of unique classes")
        return {
            "nmi": float(normalized_mutual_info_score(labels, clusters)),
            "ari": float(adjusted_rand_score(labels, clusters)),
        }
