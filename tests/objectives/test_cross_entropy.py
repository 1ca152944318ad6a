import jax.numpy as jnp
import numpy as np
import pytest
from objectives import contrastive_cases as cases
from scipy.special import expit, log_softmax

from mmjax.errors import ConfigError
from mmjax.objectives.cross_entropy import CrossEntropy

ROWS, LENGTH, CLASSES = 16, 3, 4
WEIGHTS = [1.0, 0.5, 2.0, 0.25]


def case(tokens=False):
    """logits, integer labels with some -1, and a batch that pads its last rows."""
    rng = np.random.default_rng(0)
    shape = (ROWS, LENGTH) if tokens else (ROWS,)
    logits = 3 * rng.normal(size=(*shape, CLASSES)).astype(np.float32)
    labels = rng.integers(-1, CLASSES, shape).astype(np.int32)
    batch = {"example_mask": np.arange(ROWS) < ROWS - 3, "label": labels}
    return {"logits": logits}, batch


def by_position(outputs, batch, smoothing=0.0, weights=(1.0,) * CLASSES):
    """Losses, weights and hits of the positions that count, one at a time (PyTorch's definition)."""
    logits, labels = outputs["logits"], batch["label"]
    losses, norms, hits = [], [], []
    for at in np.ndindex(labels.shape):
        label = labels[at]
        if label < 0 or not batch["example_mask"][at[0]]:
            continue
        logp = log_softmax(logits[at].astype(np.float64))
        smooth = np.mean([w * -p for w, p in zip(weights, logp, strict=True)])
        losses.append((1 - smoothing) * weights[label] * -logp[label] + smoothing * smooth)
        norms.append(weights[label])
        hits.append(logp.argmax() == label)
    return np.sum(losses) / np.sum(norms), np.mean(hits)


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("weights", [[], WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_integer_labels(tokens, weights, smoothing):
    outputs, batch = case(tokens)
    objective = CrossEntropy(logits="logits", label="label", label_smoothing=smoothing, class_weights=weights)
    loss, metrics = cases.evaluate(objective, outputs, batch)
    expected, accuracy = by_position(outputs, batch, smoothing, weights or (1.0,) * CLASSES)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(cases.mean(metrics["accuracy"]), accuracy, rtol=1e-6)


@pytest.mark.parametrize("tokens", [False, True])
def test_one_hot_soft_labels_equal_integer_labels(tokens):
    outputs, batch = case(tokens)
    labels = batch["label"]
    one_hot = np.where(labels[..., None] < 0, -1.0, np.eye(CLASSES)[labels]).astype(np.float32)
    objective = CrossEntropy(logits="logits", label="label", label_smoothing=0.1, class_weights=WEIGHTS)
    loss, metrics = cases.evaluate(objective, outputs, batch)
    soft_loss, soft_metrics = cases.evaluate(objective, outputs, batch | {"label": one_hot})
    np.testing.assert_allclose(soft_loss, loss, rtol=1e-6)
    np.testing.assert_array_equal(soft_metrics["accuracy"], metrics["accuracy"])


def test_mixed_labels_by_hand():
    outputs = {"logits": np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]).astype(np.float32)}
    batch = {
        "example_mask": np.ones(2, bool),
        "label": np.array([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5]], np.float32),
    }
    loss, _ = cases.evaluate(CrossEntropy(logits="logits", label="label"), outputs, batch)
    first = -(0.75 * np.log(0.5) + 0.25 * np.log(0.25))
    second = -(0.5 * np.log(0.8) + 0.5 * np.log(0.1))
    np.testing.assert_allclose(loss, (first + second) / 2, rtol=1e-6)


@pytest.mark.parametrize("weights", [[], WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_several_labels(weights, smoothing):
    outputs, batch = case()
    labels = np.random.default_rng(1).integers(-1, 2, (ROWS, CLASSES)).astype(np.float32)
    labels[5] = np.nan  # as the pipeline has it where the record has no such label
    objective = CrossEntropy(
        logits="logits", label="label", multi_label=True, label_smoothing=smoothing, class_weights=weights
    )
    loss, metrics = cases.evaluate(objective, outputs, batch | {"label": labels})
    total = norm = hits = entries = 0.0
    for i, c in np.ndindex(labels.shape):
        if batch["example_mask"][i] and labels[i, c] >= 0:  # neither -1 nor NaN
            w, q = (weights or [1.0] * CLASSES)[c], (1 - smoothing) * labels[i, c] + smoothing / 2
            p = expit(float(outputs["logits"][i, c]))
            total += -w * (q * np.log(p) + (1 - q) * np.log(1 - p))
            norm, entries = norm + w, entries + 1
            hits += (p > 0.5) == labels[i, c]
    np.testing.assert_allclose(loss, total / norm, rtol=1e-6)
    np.testing.assert_allclose(cases.mean(metrics["accuracy"]), hits / entries, rtol=1e-6)


def test_masked_positions_and_missing_streams_do_not_count():
    outputs, batch = case(tokens=True)
    mask = np.random.default_rng(2).random((ROWS, LENGTH)) < 0.7
    present = np.arange(ROWS) % 4 != 0
    objective = CrossEntropy(logits="logits", label="label", streams=["text"])
    loss, metrics = cases.evaluate(objective, outputs, batch | {"label_mask": mask, "text_present": present})
    hidden = np.where(mask & present[:, None], batch["label"], -1)
    expected, accuracy = by_position(outputs, batch | {"label": hidden})
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(cases.mean(metrics["accuracy"]), accuracy, rtol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_nothing_that_counts_gives_zero_and_no_nan(multi_label):
    outputs, batch = case()
    if multi_label:
        batch["label"] = np.zeros((ROWS, CLASSES), np.int32)
    batch["example_mask"] = np.zeros(ROWS, bool)
    objective = CrossEntropy(logits="logits", label="label", multi_label=multi_label)
    loss, gradient = cases.value_and_gradient(objective)(outputs, batch)
    assert loss == 0.0
    assert not np.asarray(gradient["logits"]).any()


def test_ignored_rows_have_no_gradient():
    outputs, batch = case()
    objective = CrossEntropy(logits="logits", label="label", label_smoothing=0.1)
    _, gradient = cases.value_and_gradient(objective)(outputs, batch)
    counts = batch["example_mask"] & (batch["label"] >= 0)
    assert not np.asarray(gradient["logits"])[~counts].any()
    assert np.asarray(gradient["logits"])[counts].any(axis=1).all()


def test_sharded_over_8_devices_equals_one():
    outputs, batch = case(tokens=True)
    run = cases.value_and_gradient(CrossEntropy(logits="logits", label="label", class_weights=WEIGHTS))
    loss, gradient = run(outputs, batch)
    parts_loss, parts_gradient = run(cases.sharded(outputs), cases.sharded(batch))
    np.testing.assert_allclose(parts_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(parts_gradient["logits"], gradient["logits"], rtol=1e-5, atol=1e-8)


def test_a_label_outside_the_classes_is_not_finite():
    outputs, batch = case()
    batch["label"] = np.full(ROWS, CLASSES, np.int32)
    loss, _ = cases.evaluate(CrossEntropy(logits="logits", label="label"), outputs, batch)
    assert jnp.isnan(loss)


@pytest.mark.parametrize(
    ("label", "multi_label", "expected"),
    [
        (np.zeros(ROWS, np.float32), False, r"integers \(16,\), or \(16, 4\)"),
        (np.zeros((ROWS, 2), np.int32), False, r"is int32 \(16, 2\)"),
        (np.zeros(ROWS, np.int32), True, "multi-label"),
    ],
)
def test_labels_of_another_shape_are_told(label, multi_label, expected):
    outputs, batch = case()
    objective = CrossEntropy(logits="logits", label="label", multi_label=multi_label)
    with pytest.raises(ConfigError, match=expected):
        cases.evaluate(objective, outputs, batch | {"label": label})


def test_bad_values_are_told():
    with pytest.raises(ConfigError, match="label_smoothing: got 1.0"):
        CrossEntropy(logits="logits", label="label", label_smoothing=1.0)
    with pytest.raises(ConfigError, match="got 2 numbers, expected 4"):
        cases.evaluate(CrossEntropy(logits="logits", label="label", class_weights=[1.0, 2.0]), *case())
