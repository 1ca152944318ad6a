import numpy as np
import pytest
from objectives import contrastive_cases as cases

from mmjax.objectives.vicreg import VICReg

FIELDS = {"a": "image_embedding", "b": "text_embedding", "streams": ["image", "text"]}


def reference(outputs, batch, deviation=1.0):
    rows = cases.valid_rows(batch)
    a, b = (np.asarray(outputs[k], np.float64)[rows] for k in ("image_embedding", "text_embedding"))
    invariance = ((a - b) ** 2).mean()
    variance = covariance = 0.0
    for z in (a, b):
        variance += np.maximum(0, deviation - np.sqrt(z.var(axis=0, ddof=1) + 1e-4)).mean()
        c = np.cov(z, rowvar=False)
        covariance += sum(c[i, j] ** 2 for i in range(len(c)) for j in range(len(c)) if i != j) / len(c)
    return invariance, variance, covariance


def test_equals_the_definition():
    outputs, batch = cases.outputs(), cases.batch()
    loss, metrics = cases.evaluate(VICReg(**FIELDS), outputs, batch)
    expected = reference(outputs, batch)
    measured = [cases.mean(metrics[k]) for k in ("invariance", "variance", "covariance")]
    np.testing.assert_allclose(measured, expected, rtol=1e-5)
    np.testing.assert_allclose(loss, 25 * expected[0] + 25 * expected[1] + expected[2], rtol=1e-5)
    loss, _ = cases.evaluate(
        VICReg(**FIELDS, invariance=1.0, variance=2.0, covariance=3.0, deviation=0.4), outputs, batch
    )
    expected = reference(outputs, batch, deviation=0.4)
    np.testing.assert_allclose(loss, np.dot(expected, (1, 2, 3)), rtol=1e-5)


def test_collapsed_embeddings_pay_for_their_variance():
    outputs = {k: np.ones_like(v) for k, v in cases.outputs().items() if "embedding" in k}
    _, metrics = cases.evaluate(VICReg(**FIELDS), outputs, cases.batch())
    assert cases.mean(metrics["invariance"]) == 0.0
    np.testing.assert_allclose(cases.mean(metrics["variance"]), 2 * (1 - 1e-2), rtol=1e-5)
    np.testing.assert_allclose(cases.mean(metrics["covariance"]), 0.0, atol=1e-12)


def test_rows_that_do_not_count_change_nothing():
    run = cases.value_and_gradient(VICReg(**FIELDS))
    batch, outputs = cases.batch(), cases.outputs()
    loss, gradient = run(outputs, batch)
    spoiled, spoiled_gradient = run(cases.spoiled(batch, outputs), batch)
    np.testing.assert_array_equal(spoiled, loss)
    np.testing.assert_array_equal(spoiled_gradient["image_embedding"], gradient["image_embedding"])
    small_batch, small = cases.only_valid(batch, outputs)
    np.testing.assert_allclose(run(small, small_batch)[0], loss, rtol=1e-6)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_give_no_nan(rows):
    batch, outputs = cases.batch(), cases.outputs()
    batch["example_mask"] = np.arange(cases.ROWS) < rows
    loss, gradient = cases.value_and_gradient(VICReg(**FIELDS))(outputs, batch)
    a, b = outputs["image_embedding"][:rows], outputs["text_embedding"][:rows]
    np.testing.assert_allclose(loss, 25 * np.square(a - b).mean() if rows else 0.0, rtol=1e-5)
    assert all(np.isfinite(g).all() for g in gradient.values())


def test_sharded_over_8_devices_equals_one():
    run = cases.value_and_gradient(VICReg(**FIELDS))
    outputs, batch = cases.outputs(), cases.batch()
    loss, gradient = run(outputs, batch)
    parts_loss, parts_gradient = run(cases.sharded(outputs), cases.sharded(batch))
    np.testing.assert_allclose(parts_loss, loss, rtol=1e-6)
    for name in gradient:
        np.testing.assert_allclose(parts_gradient[name], gradient[name], rtol=1e-5, atol=1e-6)
