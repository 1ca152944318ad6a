"""Clusters of frozen features against known classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from mmjax.errors import ConfigError
from mmjax.evaluation import metrics
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.evaluator import Evaluator, present
from mmjax.evaluation.frozen_features import labelled_features


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clustering(Evaluator):
    """`clustering/<name>/nmi` and `ari` of k-means clusters against a label.

    Attributes:
      features: output or batch entry `[B, ...]`; each example's numbers are one vector.
      label: batch entry, a class index `[B]`; examples with -1 do not count.
      name: in the metrics' names; empty takes the label.
      clusters: how many; 0 makes as many as there are classes in the data.
      seed: of the ten starts, the best of which counts.
      streams: only examples that have all of these count.
    """

    features: str
    label: str
    name: str = ""
    clusters: int = 0
    seed: int = 0
    streams: list[str] = dataclasses.field(default_factory=list)

    def needs(self) -> dict[str, set[str]]:
        return {self.data: {self.features, self.label, *present(*self.streams)}}

    def groups(self) -> tuple[str, ...]:
        return (f"clustering/{self.name or self.label}",)

    def evaluate(self, context: EvalContext) -> Iterator[tuple[str, float]]:
        from sklearn.cluster import KMeans

        features, labels = labelled_features(context, self.data, [self.features], self.label, self.streams)
        clusters = self.clusters or len(np.unique(labels))
        if not 1 <= clusters <= len(features):
            raise ConfigError(
                f"clustering.clusters: got {clusters}, expected 1 to {len(features)}, "
                f"the examples of '{self.data}'"
            )
        assigned = KMeans(clusters, n_init=10, random_state=self.seed).fit_predict(features)
        for name, value in metrics.clustering_scores(labels, assigned).items():
            yield f"{self.groups()[0]}/{name}", value
