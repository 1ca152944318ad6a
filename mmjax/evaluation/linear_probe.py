"""A linear classifier on frozen features."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np
from absl import logging

from mmjax.errors import ConfigError
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.frozen_features import Probe, probe_scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe(Probe):
    """`linear_probe/<name>/accuracy` (with `_low`, `_high`) and `f1_macro` of logistic regression.

    The features are standardised by the mean and deviation of the training data; the classifier is
    scikit-learn's, with an L2 penalty (the protocol of Radford et al. 2021, arXiv:2103.00020,
    section 3.2, which chooses the penalty on validation data).

    Attributes:
      inverse_penalty: C, the inverse of the penalty's strength.
      max_iterations: of L-BFGS; a warning says when they were not enough.
    """

    inverse_penalty: float = 1.0
    max_iterations: int = 1000

    def groups(self) -> tuple[str, ...]:
        return (f"linear_probe/{self.name or self.label}",)

    def evaluate(self, context: EvalContext) -> Iterator[tuple[str, float]]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        features, labels = self.examples(context, self.train)
        test_features, test_labels = self.examples(context, self.data)
        if len(np.unique(labels)) < 2:
            raise ConfigError(
                f"linear_probe: '{self.label}' of '{self.train}' has one class only, expected at least two"
            )
        classifier = make_pipeline(
            StandardScaler(), LogisticRegression(C=self.inverse_penalty, max_iter=self.max_iterations)
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            classifier.fit(features, labels)
        if any(issubclass(w.category, ConvergenceWarning) for w in caught):
            logging.warning(
                "linear_probe/%s: not converged after %d iterations; raise max_iterations",
                self.name or self.label,
                self.max_iterations,
            )
        yield from probe_scores(self.groups()[0], test_labels, classifier.predict(test_features))
