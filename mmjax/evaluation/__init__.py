"""Evaluators: what is measured, chosen by name in `evals` of a config.

A new evaluator is a file here and a line in the table.
"""

from __future__ import annotations

from mmjax.evaluation.bag_of_words import BagOfWordsRetrieval
from mmjax.evaluation.classification import Classification
from mmjax.evaluation.clustering import Clustering
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.evaluator import Evaluator
from mmjax.evaluation.knn import NearestNeighbours
from mmjax.evaluation.linear_probe import LinearProbe
from mmjax.evaluation.reconstruction import Reconstruction
from mmjax.evaluation.regression import Regression
from mmjax.evaluation.retrieval import Retrieval
from mmjax.evaluation.run import names_to_collect, run_evaluators
from mmjax.evaluation.zero_shot import ZeroShot

EVALUATORS = {
    "bag_of_words_retrieval": BagOfWordsRetrieval,
    "classification": Classification,
    "clustering": Clustering,
    "knn": NearestNeighbours,
    "linear_probe": LinearProbe,
    "reconstruction": Reconstruction,
    "regression": Regression,
    "retrieval": Retrieval,
    "zero_shot": ZeroShot,
}

__all__ = ["EVALUATORS", "EvalContext", "Evaluator", "names_to_collect", "run_evaluators"]
