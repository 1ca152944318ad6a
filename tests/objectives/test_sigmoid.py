import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import contrastive_cases as cases

from mmjax.errors import ConfigError
from mmjax.objectives.sigmoid import Sigmoid

FIELDS = {"a": "image_embedding", "b": "text_embedding", "streams": ["image", "text"]}
LEARNED = {"scale": "scale", "bias": "bias"}


def reference(outputs, batch, scale, bias, label):
    a, b = (np.asarray(outputs[k], np.float64) for k in ("image_embedding", "text_embedding"))
    rows = np.flatnonzero(cases.valid_rows(batch))
    total = 0.0
    for i in rows:
        own = cases.positives(batch, i, label)
        for j in rows:
            sign = 1.0 if j in own else -1.0
            total += np.log1p(np.exp(-sign * (scale * a[i] @ b[j] + bias)))
    return total / len(rows)


@pytest.mark.parametrize("label", ["", "concept"])
def test_equals_the_definition(label):
    outputs, batch = cases.outputs(), cases.batch()
    loss, metrics = cases.evaluate(Sigmoid(**FIELDS, **LEARNED, positives=label), outputs, batch)
    np.testing.assert_allclose(loss, reference(outputs, batch, 7.0, -2.0, label), rtol=1e-6)
    assert cases.mean(metrics["bias"]) == -2.0
    fixed, metrics = cases.evaluate(Sigmoid(**FIELDS, temperature=0.2, positives=label), outputs, batch)
    np.testing.assert_allclose(fixed, reference(outputs, batch, 5.0, 0.0, label), rtol=1e-6)
    assert "bias" not in metrics


def test_one_pair_by_hand():
    outputs = {"image_embedding": np.ones((1, 1), np.float32), "text_embedding": np.ones((1, 1), np.float32)}
    batch = {
        "example_mask": np.ones(1, bool),
        "image_present": np.ones(1, bool),
        "text_present": np.ones(1, bool),
    }
    loss, _ = cases.evaluate(Sigmoid(**FIELDS, temperature=0.5), outputs, batch)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-2.0)), rtol=1e-6)


def test_accuracy_counts_the_nearest():
    outputs, batch = cases.outputs(), cases.batch()
    _, metrics = cases.evaluate(Sigmoid(**FIELDS, **LEARNED, positives="concept"), outputs, batch)
    rows = np.flatnonzero(cases.valid_rows(batch))
    similar = outputs["image_embedding"] @ outputs["text_embedding"].T
    hits = [rows[similar[i, rows].argmax()] in cases.positives(batch, i, "concept") for i in rows]
    np.testing.assert_allclose(cases.mean(metrics["a_to_b_accuracy"]), np.mean(hits), rtol=1e-6)
    hits = [rows[similar[rows, i].argmax()] in cases.positives(batch, i, "concept") for i in rows]
    np.testing.assert_allclose(cases.mean(metrics["b_to_a_accuracy"]), np.mean(hits), rtol=1e-6)


def test_rows_that_do_not_count_change_nothing():
    run = cases.value_and_gradient(Sigmoid(**FIELDS, **LEARNED, positives="concept"))
    batch, outputs = cases.batch(), cases.outputs()
    loss, gradient = run(outputs, batch)
    spoiled, spoiled_gradient = run(cases.spoiled(batch, outputs), batch)
    np.testing.assert_array_equal(spoiled, loss)
    np.testing.assert_array_equal(spoiled_gradient["image_embedding"], gradient["image_embedding"])
    small_batch, small = cases.only_valid(batch, outputs)
    np.testing.assert_allclose(run(small, small_batch)[0], loss, rtol=1e-6)


def test_no_valid_row_gives_zero_and_no_nan():
    loss, gradient = cases.value_and_gradient(Sigmoid(**FIELDS, **LEARNED))(
        cases.outputs(), cases.none_valid(cases.batch())
    )
    assert loss == 0.0
    assert all(np.all(np.asarray(g) == 0) for g in gradient.values())


def test_sharded_over_8_devices_equals_one():
    run = cases.value_and_gradient(Sigmoid(**FIELDS, **LEARNED, positives="concept"))
    outputs, batch = cases.outputs(), cases.batch()
    loss, gradient = run(outputs, batch)
    parts_loss, parts_gradient = run(cases.sharded(outputs), cases.sharded(batch))
    np.testing.assert_allclose(parts_loss, loss, rtol=1e-6)
    for name in gradient:
        np.testing.assert_allclose(parts_gradient[name], gradient[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["scale", "bias"])
def test_gradients_of_the_learned_numbers(name):
    objective, batch, outputs = Sigmoid(**FIELDS, **LEARNED), cases.batch(), cases.outputs()

    def loss(value):
        return cases.evaluate(objective, outputs | {name: value}, batch)[0]

    at, step = float(outputs[name]), 1e-2
    difference = (loss(at + step) - loss(at - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(loss)(jnp.float32(at)), difference, rtol=2e-3)


def test_bad_temperature_is_told():
    with pytest.raises(ConfigError, match="got temperature -1"):
        Sigmoid(**FIELDS, temperature=-1.0)


def test_names_what_it_reads():
    assert Sigmoid(**FIELDS).reads() == ("image_embedding", "text_embedding")
    assert Sigmoid(**FIELDS, **LEARNED).reads() == ("image_embedding", "text_embedding", "scale", "bias")
