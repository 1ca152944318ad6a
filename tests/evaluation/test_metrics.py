import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from mmjax.evaluation import metrics


@pytest.fixture
def case():
    """Labels of five classes, one of which never occurs, and what a fair classifier says."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    predictions = np.where(rng.random(60) < 0.6, labels, rng.integers(0, 4, 60))
    return labels, predictions


def test_class_scores_equal_sklearn(case):
    labels, predictions = case
    scores = metrics.class_scores(labels, predictions, 5)
    for name in ("precision", "recall", "f1"):
        score = getattr(sklearn_metrics, f"{name}_score")
        np.testing.assert_allclose(scores.macro()[name], score(labels, predictions, average="macro"))
        np.testing.assert_allclose(getattr(scores, name)[:4], score(labels, predictions, average=None))
    assert scores.f1[4] == scores.support[4] == 0
    np.testing.assert_allclose(metrics.micro_f1(labels, predictions), np.mean(labels == predictions))


def test_f1_by_hand():
    # Class 0: 2 of 3 predictions right, 2 of 2 found; class 1: 1 of 1 right, 1 of 2 found.
    scores = metrics.class_scores(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), 2)
    np.testing.assert_allclose(scores.precision, [2 / 3, 1])
    np.testing.assert_allclose(scores.recall, [1, 1 / 2])
    np.testing.assert_allclose(scores.f1, [4 / 5, 2 / 3])
    np.testing.assert_allclose(scores.macro()["f1"], (4 / 5 + 2 / 3) / 2)


def test_a_predicted_class_without_examples_counts_in_the_macro_mean():
    scores = metrics.class_scores(np.array([0, 0]), np.array([0, 2]), 4)
    np.testing.assert_allclose(scores.macro()["recall"], 0.5 / 2)


def test_confusion_matrix_has_true_classes_in_rows():
    matrix = metrics.confusion_matrix(np.array([0, 0, 2]), np.array([1, 0, 2]), 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 0, 0], [0, 0, 1]])


def test_auroc_by_hand_and_undefined_classes():
    labels = np.array([[1, 1, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]], bool)
    scores = np.array([[0.9, 1, 0], [0.4, 1, 0], [0.4, 1, 0], [0.1, 1, 0]])
    # Class 0: of 4 (positive, negative) pairs three are in order and one ties.
    values = metrics.auroc(labels, scores, np.ones_like(labels))
    np.testing.assert_allclose(values, [3.5 / 4, np.nan, np.nan])
    assert metrics.mean_defined(values) == 3.5 / 4
    assert np.isnan(metrics.mean_defined(values[1:]))


def test_average_precision_by_hand_and_unknown_entries():
    labels = np.array([[1, 0], [0, 0], [1, 0], [1, 0]], bool)
    scores = np.array([[0.9, 0], [0.8, 0], [0.7, 0], [0.95, 0]])
    known = np.ones_like(labels)
    known[3] = False
    # In order: right, wrong, right -> precisions 1 and 2/3 at the two right ones.
    values = metrics.average_precision(labels, scores, known)
    np.testing.assert_allclose(values, [(1 + 2 / 3) / 2, np.nan])


def test_multi_label_scores_equal_sklearn():
    rng = np.random.default_rng(0)
    labels, predictions = rng.random((2, 30, 4)) < 0.4
    scores = metrics.multi_label_scores(labels, predictions)
    np.testing.assert_allclose(
        scores.macro()["f1"], sklearn_metrics.f1_score(labels, predictions, average="macro")
    )
    np.testing.assert_allclose(
        metrics.micro_f1(labels, predictions), sklearn_metrics.f1_score(labels, predictions, average="micro")
    )


def test_calibration_by_hand():
    # Bins of a tenth: (0.5, 0.6] holds 0.55 and 0.6 (one right), (0.9, 1] holds 1.0 (right), [0, 0.1] 0.
    confidence = np.array([0.55, 0.6, 1.0, 0.0])
    found = metrics.calibration(confidence, np.array([True, False, True, True]), bins=10)
    np.testing.assert_array_equal(found.count, [1, 0, 0, 0, 0, 2, 0, 0, 0, 1])
    np.testing.assert_allclose(found.confidence[[0, 5, 9]], [0.0, 0.575, 1.0])
    np.testing.assert_allclose(found.accuracy[[0, 5, 9]], [1.0, 0.5, 1.0])
    np.testing.assert_allclose(found.error, 0.25 * 1.0 + 0.5 * 0.075 + 0.0)


def test_a_calibrated_classifier_has_a_small_error():
    rng = np.random.default_rng(0)
    confidence = rng.random(100_000)
    found = metrics.calibration(confidence, rng.random(100_000) < confidence)
    assert found.error < 0.01
    assert found.count.sum() == 100_000 and len(found.count) == 15


def test_probabilities():
    logits = np.array([[0.0, np.log(3.0)], [1000.0, -1000.0]], np.float32)
    np.testing.assert_allclose(metrics.probabilities(logits), [[0.25, 0.75], [1, 0]], rtol=1e-6)
    np.testing.assert_allclose(
        metrics.probabilities(logits, multi_label=True), [[0.5, 0.75], [1, 0]], rtol=1e-6
    )


def test_bootstrap_interval_covers_and_is_seeded():
    correct = np.arange(400) % 4 != 0
    low, high = metrics.bootstrap_interval(correct)
    error = np.sqrt(0.75 * 0.25 / 400)
    np.testing.assert_allclose([low, high], [0.75 - 1.96 * error, 0.75 + 1.96 * error], atol=0.006)
    assert (low, high) == metrics.bootstrap_interval(correct)
    assert (low, high) != metrics.bootstrap_interval(correct, seed=1)
    assert metrics.bootstrap_interval(np.full(5, 3.0), np.median) == (3.0, 3.0)
    assert np.isnan(metrics.bootstrap_interval(np.zeros(0))).all()


def test_regression_scores():
    targets = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    predictions = np.array([[1.0, 4.0], [3.0, 4.0], [4.0, 4.0]])
    scores = metrics.regression_scores(targets, predictions)
    np.testing.assert_allclose(scores["mse"], 4 / 6)
    np.testing.assert_allclose(scores["mae"], 4 / 6)
    # The second target is constant, so only the first has an r2 and a correlation.
    np.testing.assert_allclose(scores["r2"], sklearn_metrics.r2_score(targets[:, 0], predictions[:, 0]))
    np.testing.assert_allclose(scores["pearson"], np.corrcoef(targets[:, 0], predictions[:, 0])[0, 1])
    assert all(np.isnan(v) for v in metrics.regression_scores(targets[:0], predictions[:0]).values())


def test_clustering_scores_do_not_depend_on_cluster_names():
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert metrics.clustering_scores(labels, np.array([5, 5, 3, 3, 0, 0])) == {"nmi": 1.0, "ari": 1.0}
    assert metrics.clustering_scores(labels, np.zeros(6, int)) == {"nmi": 0.0, "ari": 0.0}
