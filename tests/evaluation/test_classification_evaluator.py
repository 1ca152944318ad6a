import numpy as np
import pytest
from evaluation import eval_cases as cases
from sklearn import metrics as sklearn_metrics

from mmjax.errors import ConfigError

SECTION = {"type": "classification", "data": "test", "head": "digit_logits", "label": "digit"}
NAMES = ["zero", "one", "two"]


def case(tmp_path, label=None, rows=30, batch_size=8):
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, rows).astype(np.int32) if label is None else label
    logits = rng.normal(size=(rows, 3)).astype(np.float32)
    if label is None:
        logits += 1.5 * np.eye(3, dtype=np.float32)[labels]
    split = cases.Split({"digit": labels, "image_present": np.arange(rows) % 5 != 0}, batch_size=batch_size)
    context = cases.make_context(
        tmp_path, {"test": split}, {"digit_logits": logits}, class_names={"digit": NAMES}
    )
    return context, logits, labels


def test_equals_sklearn_on_the_rows_that_count(tmp_path):
    context, logits, labels = case(tmp_path)
    found = cases.run(context, **SECTION)
    known = labels >= 0
    labels, logits = labels[known], logits[known].astype(np.float64)
    predictions = logits.argmax(1)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    averages = {"average": "macro", "zero_division": 0.0}
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predictions),
        "f1_macro": sklearn_metrics.f1_score(labels, predictions, **averages),
        "precision_macro": sklearn_metrics.precision_score(labels, predictions, **averages),
        "recall_macro": sklearn_metrics.recall_score(labels, predictions, **averages),
        "f1_micro": sklearn_metrics.f1_score(labels, predictions, average="micro"),
        "auroc": sklearn_metrics.roc_auc_score(labels, softmax, multi_class="ovr"),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"classification/digit_logits/{name}"], value, err_msg=name)
    low, high = (found[f"classification/digit_logits/accuracy_{end}"] for end in ("low", "high"))
    assert low < expected["accuracy"] < high
    assert 0 < found["classification/digit_logits/ece"] < 1


def test_streams_and_the_interval_can_be_chosen(tmp_path):
    context, logits, labels = case(tmp_path)
    found = cases.run(context, **SECTION, streams=["image"], bootstrap_samples=0)
    kept = (labels >= 0) & (np.arange(30) % 5 != 0)
    accuracy = np.mean(logits[kept].argmax(1) == labels[kept])
    np.testing.assert_allclose(found["classification/digit_logits/accuracy"], accuracy)
    assert "classification/digit_logits/accuracy_low" not in found


def test_leaves_what_the_report_draws(tmp_path):
    context, logits, labels = case(tmp_path)
    found = cases.run(context, **SECTION)
    matrix = cases.artifact(tmp_path, "classification_digit_logits_confusion_matrix")
    assert matrix["kind"] == "confusion_matrix" and matrix["labels"] == NAMES
    known = labels >= 0
    expected = sklearn_metrics.confusion_matrix(labels[known], logits[known].argmax(1))
    np.testing.assert_array_equal(matrix["matrix"], expected)
    assert [c["support"] for c in matrix["classes"]] == expected.sum(1).tolist()
    assert [c["name"] for c in matrix["classes"]] == NAMES
    assert all(0.5 < c["auroc"] <= 1 for c in matrix["classes"])
    calibration = cases.artifact(tmp_path, "classification_digit_logits_calibration")
    assert calibration["kind"] == "calibration" and len(calibration["count"]) == 15
    assert sum(calibration["count"]) == known.sum()
    assert calibration["ece"] == found["classification/digit_logits/ece"]


def test_several_labels(tmp_path):
    labels = np.random.default_rng(1).integers(0, 2, (30, 3)).astype(np.int32)
    context, logits, _ = case(tmp_path, labels)
    found = cases.run(context, **SECTION, multi_label=True)
    expected = {
        "mAP": sklearn_metrics.average_precision_score(labels, logits, average="macro"),
        "auroc": sklearn_metrics.roc_auc_score(labels, logits, average="macro"),
        "f1_macro": sklearn_metrics.f1_score(labels, logits > 0, average="macro"),
        "f1_micro": sklearn_metrics.f1_score(labels, logits > 0, average="micro"),
        "precision_macro": sklearn_metrics.precision_score(labels, logits > 0, average="macro"),
        "recall_macro": sklearn_metrics.recall_score(labels, logits > 0, average="macro"),
    }
    assert set(found) == {f"classification/digit_logits/{name}" for name in expected}
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"classification/digit_logits/{name}"], value, err_msg=name)
    classes = cases.artifact(tmp_path, "classification_digit_logits_classes")["classes"]
    np.testing.assert_allclose(np.mean([c["average_precision"] for c in classes]), expected["mAP"])


def test_unknown_entries_of_several_labels_do_not_count(tmp_path):
    labels = np.random.default_rng(1).integers(-1, 2, (30, 3)).astype(np.int32)
    context, logits, _ = case(tmp_path, labels)
    found = cases.run(context, **SECTION, multi_label=True)
    per_class = []
    for c in range(3):
        known = labels[:, c] >= 0
        per_class.append(sklearn_metrics.f1_score(labels[known, c], logits[known, c] > 0))
    np.testing.assert_allclose(found["classification/digit_logits/f1_macro"], np.mean(per_class))


@pytest.mark.parametrize(
    ("label", "multi_label", "message"),
    [
        (np.zeros(30, np.float32), False, "is float32 .* expected whole numbers"),
        (np.zeros((30, 3), np.int32), False, "multi_label: true"),
        (np.zeros(30, np.int32), True, "since multi_label is true"),
        (np.full(30, -1, np.int32), False, "no example of 'test' has the label 'digit'"),
        (np.full(30, 3, np.int32), False, "goes up to 3, but 'digit_logits' has 3 classes"),
    ],
)
def test_labels_that_do_not_fit_are_told(tmp_path, label, multi_label, message):
    context, _, _ = case(tmp_path, label)
    with pytest.raises(ConfigError, match=message):
        cases.run(context, **SECTION, multi_label=multi_label)
