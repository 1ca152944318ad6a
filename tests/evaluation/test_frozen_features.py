"""Linear probe, nearest neighbours and clustering."""

import logging

import numpy as np
import pytest
from absl import logging as absl_logging
from evaluation import eval_cases as cases
from sklearn.linear_model import LogisticRegression

from mmjax.errors import ConfigError

CENTRES = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]])


def split(seed, rows=30, noise=0.5, first_id=0):
    rng = np.random.default_rng(seed)
    labels = (np.arange(rows) % 3).astype(np.int32)
    features = CENTRES[labels] + noise * rng.normal(size=(rows, 3))
    labels[::10] = -1
    ids = np.arange(first_id, first_id + rows, dtype=np.int32)
    return {"example_id": ids, "digit": labels}, features.astype(np.float32)


def context(tmp_path, noise=0.5):
    train, train_features = split(0, noise=noise)
    test, test_features = split(1, noise=noise, first_id=30)
    made = cases.make_context(
        tmp_path,
        {"train": cases.Split(train), "test": cases.Split(test)},
        {"features": np.concatenate([train_features, test_features])},
    )
    return made, (train["digit"], train_features), (test["digit"], test_features)


@pytest.mark.parametrize("kind", ["linear_probe", "knn"])
def test_separable_classes_are_told_apart(tmp_path, kind):
    made, _, _ = context(tmp_path)
    settings = {"k": 3} if kind == "knn" else {}
    found = cases.run(made, type=kind, data="test", features="features", label="digit", **settings)
    assert found == {
        f"{kind}/digit/{name}": 1.0 for name in ("accuracy", "accuracy_low", "accuracy_high", "f1_macro")
    }


def test_linear_probe_is_logistic_regression_on_standardised_features(tmp_path):
    made, (labels, features), (test_labels, test_features) = context(tmp_path, noise=4.0)
    found = cases.run(
        made,
        type="linear_probe",
        data="test",
        features="features",
        label="digit",
        inverse_penalty=0.3,
        name="own",
    )
    features, labels = features[labels >= 0].astype(np.float64), labels[labels >= 0]
    mean, deviation = features.mean(0), features.std(0)
    classifier = LogisticRegression(C=0.3, max_iter=1000).fit((features - mean) / deviation, labels)
    known = test_labels >= 0
    expected = classifier.score((test_features[known] - mean) / deviation, test_labels[known])
    assert found["linear_probe/own/accuracy"] == pytest.approx(expected)
    assert expected < 1


def test_linear_probe_warns_when_it_has_not_converged(tmp_path, caplog):
    made, _, _ = context(tmp_path, noise=4.0)
    absl_logging.get_absl_logger().propagate = True
    with caplog.at_level(logging.WARNING):
        cases.run(
            made, type="linear_probe", data="test", features="features", label="digit", max_iterations=1
        )
    assert "not converged after 1 iterations" in caplog.text


def test_knn_is_by_direction_not_by_length(tmp_path):
    # The test vector is nearer to class 1 by distance and in the direction of class 0.
    train = {"digit": np.array([0, 1], np.int32)}
    test = {"example_id": np.array([2], np.int32), "digit": np.array([0], np.int32)}
    features = np.array([[10.0, 0.0], [0.5, 0.5], [0.9, 0.1]], np.float32)
    made = cases.make_context(
        tmp_path, {"train": cases.Split(train), "test": cases.Split(test)}, {"features": features}
    )
    found = cases.run(made, type="knn", data="test", features="features", label="digit", k=1)
    assert found["knn/digit/accuracy"] == 1.0


def test_clustering_finds_separate_groups(tmp_path):
    made, _, _ = context(tmp_path)
    found = cases.run(made, type="clustering", data="test", features="features", label="digit")
    assert found == pytest.approx({"clustering/digit/nmi": 1.0, "clustering/digit/ari": 1.0})
    fewer = cases.run(
        made, type="clustering", data="test", features="features", label="digit", clusters=2, name="x"
    )
    assert 0.5 < fewer["clustering/x/nmi"] < 0.9


def test_raw_input_of_any_shape_is_a_control(tmp_path):
    table, features = split(0)
    image = features.reshape(30, 1, 3, 1)
    made = cases.make_context(tmp_path, {"train": cases.Split(table | {"image": image})})
    found = cases.run(made, type="linear_probe", data="train", features="image", label="digit")
    assert found["linear_probe/digit/accuracy"] == 1.0


def test_bad_settings_are_told(tmp_path):
    made, _, _ = context(tmp_path)
    section = {"data": "test", "features": "features", "label": "digit"}
    with pytest.raises(ConfigError, match="knn.k: got 100, expected 1 to 27"):
        cases.run(made, type="knn", k=100, **section)
    with pytest.raises(ConfigError, match="clustering.clusters: got 100, expected 1 to 27"):
        cases.run(made, type="clustering", clusters=100, **section)
    with pytest.raises(ConfigError, match="the label 'features' is float32"):
        cases.run(made, type="knn", **section | {"label": "features"})
    none = cases.make_context(
        tmp_path, {"train": cases.Split({"digit": np.full(4, -1, np.int32)})}, {"features": np.zeros((4, 2))}
    )
    with pytest.raises(ConfigError, match="no example of 'train' has the label 'digit'"):
        cases.run(none, type="knn", **section | {"data": "train"})
    one = cases.make_context(
        tmp_path, {"train": cases.Split({"digit": np.ones(4, np.int32)})}, {"features": np.zeros((4, 2))}
    )
    with pytest.raises(ConfigError, match="has one class only"):
        cases.run(one, type="linear_probe", **section | {"data": "train"})
