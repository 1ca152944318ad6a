"""The nearest neighbours of frozen features."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

from mmjax.errors import ConfigError
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.frozen_features import Probe, probe_scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearestNeighbours(Probe):
    """`knn/<name>/accuracy` (with `_low`, `_high`) and `f1_macro` of the k nearest.

    The neighbours vote with equal weight; of equally many votes the lower class index wins.

    Attributes:
      k: neighbours that vote.
      metric: what is near: a large 'cosine', or a small 'euclidean' distance.
    """

    k: int = 20
    metric: Literal["cosine", "euclidean"] = "cosine"

    def groups(self) -> tuple[str, ...]:
        return (f"knn/{self.name or self.label}",)

    def evaluate(self, context: EvalContext) -> Iterator[tuple[str, float]]:
        from sklearn.neighbors import KNeighborsClassifier

        features, labels = self.examples(context, self.train)
        test_features, test_labels = self.examples(context, self.data)
        if not 1 <= self.k <= len(features):
            raise ConfigError(
                f"knn.k: got {self.k}, expected 1 to {len(features)}, the examples of '{self.train}'"
            )
        classifier = KNeighborsClassifier(n_neighbors=self.k, metric=self.metric).fit(features, labels)
        yield from probe_scores(self.groups()[0], test_labels, classifier.predict(test_features))
