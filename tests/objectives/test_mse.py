import numpy as np
import pytest
from objectives import contrastive_cases as cases

from mmjax.errors import ConfigError
from mmjax.objectives.mse import MeanSquaredError

ROWS, LENGTH, WIDTH = 16, 4, 3


def case():
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, ROWS, LENGTH, WIDTH)).astype(np.float32)
    batch = {
        "example_mask": np.arange(ROWS) < ROWS - 3,
        "audio": target,
        "audio_mask": rng.random((ROWS, LENGTH)) < 0.7,
        "audio_present": rng.random(ROWS) < 0.8,
        "image_present": rng.random(ROWS) < 0.8,
    }
    return {"rebuilt": prediction}, batch


def test_counts_only_what_is_real():
    outputs, batch = case()
    loss, _ = cases.evaluate(
        MeanSquaredError(prediction="rebuilt", target="audio", streams=["image"]), outputs, batch
    )
    rows = batch["example_mask"] & batch["audio_present"] & batch["image_present"]
    squares = [
        (float(outputs["rebuilt"][i, t, d]) - float(batch["audio"][i, t, d])) ** 2
        for i, t, d in np.ndindex(ROWS, LENGTH, WIDTH)
        if rows[i] and batch["audio_mask"][i, t]
    ]
    np.testing.assert_allclose(loss, np.mean(squares), rtol=1e-6)


def test_a_number_per_row_with_missing_ones():
    prediction = np.array([[1.0], [2.0], [5.0], [9.0]], np.float32)
    batch = {
        "example_mask": np.array([True, True, True, False]),
        "rating": np.array([0.0, np.nan, 3.0, 0.0], np.float32),
    }
    run = cases.value_and_gradient(MeanSquaredError(prediction="score", target="rating"))
    loss, gradient = run({"score": prediction}, batch)
    np.testing.assert_allclose(loss, (1.0 + 4.0) / 2)
    np.testing.assert_allclose(gradient["score"][:, 0], [1.0, 0.0, 2.0, 0.0])


def test_rows_that_do_not_count_change_nothing():
    outputs, batch = case()
    run = cases.value_and_gradient(MeanSquaredError(prediction="rebuilt", target="audio"))
    loss, gradient = run(outputs, batch)
    hidden = ~(batch["example_mask"] & batch["audio_present"])
    spoiled = np.where(hidden[:, None, None], np.float32(1e3), outputs["rebuilt"])
    spoiled_loss, spoiled_gradient = run({"rebuilt": spoiled}, batch)
    np.testing.assert_array_equal(spoiled_loss, loss)
    np.testing.assert_array_equal(spoiled_gradient["rebuilt"], gradient["rebuilt"])
    assert not np.asarray(gradient["rebuilt"])[hidden].any()


def test_nothing_that_counts_gives_zero_and_no_nan():
    outputs, batch = case()
    run = cases.value_and_gradient(MeanSquaredError(prediction="rebuilt", target="audio"))
    loss, gradient = run(outputs, cases.none_valid(batch))
    assert loss == 0.0
    assert not np.asarray(gradient["rebuilt"]).any()


def test_sharded_over_8_devices_equals_one():
    outputs, batch = case()
    run = cases.value_and_gradient(MeanSquaredError(prediction="rebuilt", target="audio"))
    loss, gradient = run(outputs, batch)
    parts_loss, parts_gradient = run(cases.sharded(outputs), cases.sharded(batch))
    np.testing.assert_allclose(parts_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(parts_gradient["rebuilt"], gradient["rebuilt"], rtol=1e-6, atol=1e-9)


def test_another_shape_is_told():
    outputs, batch = case()
    with pytest.raises(
        ConfigError, match=r"'rebuilt' has shape \(16, 2, 3\), the target 'audio' \(16, 4, 3\)"
    ):
        cases.evaluate(
            MeanSquaredError(prediction="rebuilt", target="audio"),
            {"rebuilt": outputs["rebuilt"][:, :2]},
            batch,
        )
