import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import contrastive_cases as cases

from mmjax import components
from mmjax.errors import ConfigError
from mmjax.objectives import OBJECTIVES, check, combine, losses_of_part, total_loss
from mmjax.objectives.cross_entropy import CrossEntropy
from mmjax.objectives.mse import MeanSquaredError

SPECS = {
    "contrastive": {
        "type": "infonce",
        "a": "image_embedding",
        "b": "text_embedding",
        "streams": ["image", "text"],
        "scale": "scale",
    },
    "agree": {
        "type": "mse",
        "prediction": "image_embedding",
        "target": "wanted",
        "weight": 0.5,
    },
}


def objectives(**specs):
    return {
        name: components.build(
            "objectives", components.normalise(spec, components.component("objectives"), name)
        )
        for name, spec in (specs or SPECS).items()
    }


def case():
    outputs, batch = cases.outputs(), cases.batch()
    return outputs, batch | {"wanted": outputs["text_embedding"]}


def test_sums_weighted_losses_and_names_metrics():
    outputs, batch = case()
    total, metrics = jax.jit(lambda o, b: total_loss(objectives(), o, b))(outputs, batch)
    parts = {name: cases.evaluate(objective, outputs, batch)[0] for name, objective in objectives().items()}
    np.testing.assert_allclose(total, parts["contrastive"] + 0.5 * parts["agree"], rtol=1e-6)
    assert set(metrics) == {
        "loss",
        "contrastive/loss",
        "contrastive/a_to_b_accuracy",
        "contrastive/b_to_a_accuracy",
        "contrastive/scale",
        "agree/loss",
    }
    np.testing.assert_allclose(cases.mean(metrics["agree/loss"]), parts["agree"], rtol=1e-6)
    np.testing.assert_allclose(cases.mean(metrics["loss"]), total)
    assert all(np.ndim(part) == 0 for metric in metrics.values() for part in metric)


def test_what_is_not_there_is_told_with_the_nearest_name():
    outputs, batch = jax.tree.map(jnp.asarray, case())
    wrong = objectives(main=SPECS["contrastive"] | {"a": "image_embeding"})
    with pytest.raises(ConfigError, match="objectives.main: reads 'image_embeding'.*mean 'image_embedding'"):
        total_loss(wrong, outputs, batch)
    wrong = objectives(main=SPECS["contrastive"] | {"streams": ["image", "texts"]})
    with pytest.raises(
        ConfigError, match="reads 'texts_present'.*mean 'text_present'.*the batch has: concept"
    ):
        total_loss(wrong, outputs, batch)
    check(objectives(), outputs.keys(), batch.keys())


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_has_the_shared_fields(name):
    fields = components.fields(OBJECTIVES[name])
    assert fields["weight"] == (float, 1.0)
    assert OBJECTIVES[name].__doc__


def test_means_of_parts_add_up_to_that_of_the_whole():
    """With other counts in each part, among them none."""
    rng = np.random.default_rng(1)
    size, classes = 12, 5
    label = rng.integers(-1, classes, size).astype(np.int32)
    label[:4] = -1
    several = rng.integers(-1, 2, (size, classes)).astype(np.int32)
    soft = rng.dirichlet(np.ones(classes), size).astype(np.float32)
    wish = rng.normal(size=(size, classes)).astype(np.float32)
    wish[5, 2] = np.nan
    batch = {
        "example_mask": np.arange(size) != 6,
        "x_present": rng.random(size) < 0.7,
        **{"label": label, "several": several, "soft": soft, "wish": wish},
    }
    outputs = {"logits": rng.normal(size=(size, classes)).astype(np.float32)}
    weighted = {"label_smoothing": 0.1, "class_weights": [1.0, 2.0, 0.5, 0.0, 3.0], "streams": ["x"]}
    means = {
        "index": CrossEntropy(logits="logits", label="label", **weighted),
        "several": CrossEntropy(logits="logits", label="several", multi_label=True, weight=0.3, **weighted),
        "soft": CrossEntropy(logits="logits", label="soft", **weighted),
        "mse": MeanSquaredError(prediction="logits", target="wish", streams=["x"], weight=2.0),
    }
    outputs, batch = jax.tree.map(jnp.asarray, (outputs, batch))
    expected = total_loss(means, outputs, batch)
    nothing = jax.tree.map(jnp.zeros_like, outputs)
    numbers = {name: objective.terms(nothing, batch)[1] for name, objective in means.items()}

    def part(rows):
        return losses_of_part(means, *jax.tree.map(lambda x: x[rows], (outputs, batch)), numbers)

    parts = [part(rows) for rows in (slice(4), slice(4, 5), slice(5, None))]
    found = combine(means, *jax.tree.map(lambda *x: sum(x), *parts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
