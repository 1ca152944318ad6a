from __future__ import annotations

import re

import numpy as np
import pytest
from reports.run_files import class_rows

from mmjax.reports.classification import calibration, class_table, confusion_matrix


def artifact(matrix):
    matrix = np.asarray(matrix)
    labels = [f"class {i}" for i in range(len(matrix))]
    return {"labels": labels, "matrix": matrix.tolist(), "classes": class_rows(labels, matrix)}


def test_classes_are_listed_worst_first():
    rows = [{"name": "a", "f1": 0.5, "auroc": None}, {"name": "b", "f1": 0.25, "auroc": 0.75}]
    shown = class_table({"classes": rows})
    assert re.findall(r"<th>(.*?)</th>", shown) == ["class", "", "F1", "AUROC"]
    assert re.findall(r"<td>([^<]*)</td>", shown) == ["b", "0.250", "0.750", "a", "0.500", ""]
    assert class_table({"classes": []}) is None


def test_the_largest_confusion_comes_first():
    shown = confusion_matrix(artifact([[5, 0, 3], [1, 9, 0], [0, 0, 4]]))
    first = shown[shown.index("Most confused") :].split("<tbody>")[1].split("</tr>")[0]
    assert re.findall(r"<td>(.*?)</td>", first) == ["class 0", "class 2", "3", "38%"]


def test_only_cells_with_counts_are_drawn():
    shown = confusion_matrix(artifact(np.eye(40, dtype=int)))
    assert shown.count("<title>") == 40
    assert "Most confused" not in shown


def test_a_very_large_matrix_is_not_drawn():
    shown = confusion_matrix(artifact(np.eye(300, dtype=int) + np.eye(300, k=1, dtype=int)))
    assert "confusion matrix" not in shown and "Most confused" in shown


def test_a_class_without_examples_and_an_empty_matrix():
    assert "nan" not in confusion_matrix(artifact([[3, 0], [0, 0]]))
    assert confusion_matrix(artifact([[0, 0], [0, 0]])) is None


def test_a_matrix_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="expected a row and a column for each of 2"):
        confusion_matrix({"labels": ["a", "b"], "matrix": [[1, 2]]})


def test_calibration_leaves_out_empty_bins():
    bins = {"confidence": [0.1, None, 0.9], "accuracy": [0.0, None, 0.8], "count": [2, 0, 10], "ece": 0.1}
    shown = calibration(bins)
    assert shown.count("<title>") == 2 and "expected error 0.100" in shown
    assert calibration({"confidence": [0.1], "accuracy": [0.0], "count": [0]}) is None
