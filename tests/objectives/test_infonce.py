import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import contrastive_cases as cases

from mmjax.errors import ConfigError
from mmjax.objectives import MeanObjective
from mmjax.objectives.infonce import InfoNCE

FIELDS = {"a": "image_embedding", "b": "text_embedding", "streams": ["image", "text"]}


def reference(outputs, batch, scale, label):
    """The definition, one row at a time, in float64."""
    a, b = (np.asarray(outputs[k], np.float64) for k in ("image_embedding", "text_embedding"))
    rows = np.flatnonzero(cases.valid_rows(batch))
    losses, hits = [], []
    for first, second in ((a, b), (b, a)):
        for i in rows:
            logits = {j: scale * first[i] @ second[j] for j in rows}
            normaliser = np.log(sum(np.exp(v) for v in logits.values()))
            own = cases.positives(batch, i, label)
            losses.append(-np.mean([logits[p] - normaliser for p in own]))
            hits.append(max(logits, key=logits.get) in own)
    half = len(rows)
    return np.mean(losses), np.mean(hits[:half]), np.mean(hits[half:])


@pytest.mark.parametrize("label", ["", "concept"])
def test_equals_the_definition(label):
    outputs, batch = cases.outputs(), cases.batch()
    loss, metrics = cases.evaluate(InfoNCE(**FIELDS, scale="scale", positives=label), outputs, batch)
    expected, a_to_b, b_to_a = reference(outputs, batch, 7.0, label)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(cases.mean(metrics["a_to_b_accuracy"]), a_to_b, rtol=1e-6)
    np.testing.assert_allclose(cases.mean(metrics["b_to_a_accuracy"]), b_to_a, rtol=1e-6)
    assert cases.mean(metrics["scale"]) == 7.0


def test_two_pairs_by_hand():
    # Logits 4 on the diagonal and 0 off it: every row's loss is log(1 + exp(-4)).
    outputs = {"image_embedding": np.eye(2, dtype=np.float32), "text_embedding": np.eye(2, dtype=np.float32)}
    batch = {
        "example_mask": np.ones(2, bool),
        "image_present": np.ones(2, bool),
        "text_present": np.ones(2, bool),
    }
    loss, metrics = cases.evaluate(InfoNCE(**FIELDS, temperature=0.25), outputs, batch)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-4.0)), atol=1e-7)
    assert cases.mean(metrics["a_to_b_accuracy"]) == 1.0


def test_all_of_one_id_has_the_entropy_of_the_uniform_target_at_best():
    outputs, batch = cases.outputs(), cases.batch()
    batch["concept"] = np.zeros_like(batch["concept"])
    same = {k: np.ones_like(v) / np.sqrt(cases.WIDTH) for k, v in outputs.items() if "embedding" in k}
    loss, metrics = cases.evaluate(InfoNCE(**FIELDS, positives="concept"), same, batch)
    np.testing.assert_allclose(loss, np.log(cases.valid_rows(batch).sum()), rtol=1e-6)
    assert cases.mean(metrics["b_to_a_accuracy"]) == 1.0


@pytest.mark.parametrize("label", ["", "concept"])
def test_rows_that_do_not_count_change_nothing(label):
    objective = InfoNCE(**FIELDS, scale="scale", positives=label)
    run = cases.value_and_gradient(objective)
    batch, outputs = cases.batch(), cases.outputs()
    loss, gradient = run(outputs, batch)
    spoiled, spoiled_gradient = run(cases.spoiled(batch, outputs), batch)
    np.testing.assert_array_equal(spoiled, loss)
    np.testing.assert_array_equal(spoiled_gradient["image_embedding"], gradient["image_embedding"])
    assert not gradient["text_embedding"][~cases.valid_rows(batch)].any()
    small_batch, small = cases.only_valid(batch, outputs)
    alone, alone_gradient = run(small, small_batch)
    np.testing.assert_allclose(alone, loss, rtol=1e-6)
    np.testing.assert_allclose(
        alone_gradient["text_embedding"],
        gradient["text_embedding"][cases.valid_rows(batch)],
        rtol=1e-5,
        atol=1e-8,
    )


def test_no_valid_row_gives_zero_and_no_nan():
    loss, gradient = cases.value_and_gradient(InfoNCE(**FIELDS, scale="scale"))(
        cases.outputs(), cases.none_valid(cases.batch())
    )
    assert loss == 0.0
    assert all(np.all(np.asarray(g) == 0) for g in gradient.values())


def test_sharded_over_8_devices_equals_one():
    run = cases.value_and_gradient(InfoNCE(**FIELDS, scale="scale", positives="concept"))
    outputs, batch = cases.outputs(), cases.batch()
    loss, gradient = run(outputs, batch)
    parts_loss, parts_gradient = run(cases.sharded(outputs), cases.sharded(batch))
    assert len(parts_gradient["image_embedding"].sharding.device_set) == 8
    np.testing.assert_allclose(parts_loss, loss, rtol=1e-6)
    for name in gradient:
        np.testing.assert_allclose(parts_gradient[name], gradient[name], rtol=1e-5, atol=1e-7)


def test_gradient_of_a_learned_scale_stops_where_its_head_clamps_it():
    objective, batch, outputs = InfoNCE(**FIELDS, scale="scale"), cases.batch(), cases.outputs()

    def loss(log_scale):
        scale = jnp.minimum(jnp.exp(log_scale), 100.0)
        return cases.evaluate(objective, outputs | {"scale": scale}, batch)[0]

    gradient, step = jax.jit(jax.grad(loss)), 1e-2
    difference = (loss(1.0 + step) - loss(1.0 - step)) / (2 * step)
    np.testing.assert_allclose(gradient(1.0), difference, rtol=1e-3)
    assert abs(gradient(1.0)) > 0.1
    assert gradient(5.0) == 0.0
    np.testing.assert_array_equal(loss(5.0), loss(6.0))


def test_bfloat16_embeddings_are_computed_in_float32():
    outputs, batch = cases.outputs(), cases.batch()
    half = {k: jnp.asarray(v, jnp.bfloat16) for k, v in outputs.items()}
    loss, _ = cases.evaluate(InfoNCE(**FIELDS, scale="scale"), half, batch)
    rounded = {k: np.asarray(v, np.float32) for k, v in half.items()}
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, reference(rounded, batch, 7.0, "")[0], rtol=1e-6)


def test_bad_values_are_told():
    with pytest.raises(ConfigError, match="got temperature 0"):
        InfoNCE(**FIELDS, temperature=0.0)
    with pytest.raises(ConfigError, match="expected one number"):
        cases.evaluate(InfoNCE(**FIELDS, scale="image_embedding"), cases.outputs(), cases.batch())


def test_names_what_it_reads():
    objective = InfoNCE(**FIELDS, scale="scale", positives="concept")
    assert objective.reads() == ("image_embedding", "text_embedding", "scale")
    assert objective.targets() == ("image_present", "text_present", "concept")
    assert not isinstance(objective, MeanObjective)  # examples see each other
