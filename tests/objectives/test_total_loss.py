import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import contrastive_cases as cases

from mmjax import components
from mmjax.errors import ConfigError
from mmjax.objectives import OBJECTIVES, check, total_loss

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
    assert OBJECTIVES[name].__doc__ and isinstance(OBJECTIVES[name].batchwise, bool)
