"""The relation network against its equation, pair by pair."""

import fusion_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.fusion.relation import Relation

FUSION = Relation(objects="text", relation=[16, 12], hidden=[10], width=8)


def by_hand(parameters, objects, condition, hidden=1):
    """f(sum g(o_i, o_j, q)) with whole matrices, for one example."""
    p = jax.tree.map(np.asarray, parameters["params"])
    names = [name for name in p if name.endswith("_projection")]
    kernel = np.concatenate(
        [p["text_first"]["kernel"], p["text_second"]["kernel"], *(p[n]["kernel"] for n in sorted(names))]
    )
    total = 0.0
    for first in objects:
        for second in objects:
            x = np.maximum(np.concatenate([first, second, condition]) @ kernel + p["bias"], 0)
            total += np.maximum(x @ p["relation_1"]["kernel"] + p["relation_1"]["bias"], 0)
    x = np.maximum(total @ p["layers_0"]["kernel"] + p["layers_0"]["bias"], 0)
    return x @ p["layers_1"]["kernel"] + p["layers_1"]["bias"]


def test_it_is_equation_one():
    given = cases.features(missing=False)
    variables = FUSION.init(jax.random.key(0), given)
    fused = jax.jit(FUSION.apply)(variables, given)
    for row in (0, 3):  # row 0 ends in a padding token
        real = np.asarray(given["text"].tokens[row])[np.asarray(given["text"].mask[row])]
        condition = np.concatenate([given["audio"].pooled[row], given["image"].pooled[row]])
        np.testing.assert_allclose(
            fused.pooled[row], by_hand(variables, real, condition), rtol=1e-4, atol=1e-5
        )


def test_the_order_of_objects_does_not_matter():
    given = cases.features(missing=False)
    variables = FUSION.init(jax.random.key(0), given)
    text = given["text"]
    turned = text.replace(tokens=text.tokens[:, ::-1], mask=text.mask[:, ::-1])
    fused, other = FUSION.apply(variables, given), FUSION.apply(variables, given | {"text": turned})
    np.testing.assert_allclose(other.pooled, fused.pooled, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(other.tokens[:, -3:], fused.tokens[:, -3:][:, ::-1], rtol=1e-4, atol=1e-5)


def test_the_parts_of_the_objects_are_the_sum():
    """With a linear f, the tokens of the objects add up to the vector."""
    fusion = Relation(objects="text", relation=[16], hidden=[], width=8)
    given = cases.features(missing=False)
    variables = fusion.init(jax.random.key(0), given)
    fused = fusion.apply(variables, given)
    np.testing.assert_allclose(fused.tokens[:, -3:].sum(axis=1), fused.pooled, rtol=1e-4, atol=1e-5)


def test_first_outputs_are_of_one_size():
    sizes = []
    for number in (2, 30):
        objects = cases.features()["text"].replace(
            tokens=jax.random.normal(jax.random.key(1), (8, number, 10)), mask=jnp.ones((8, number), bool)
        )
        given = {"text": objects}
        made = FUSION.init_with_output(jax.random.key(0), given)[0]
        sizes.append(float(jnp.abs(made.pooled).mean()))
    assert 0.3 < sizes[0] / sizes[1] < 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objects": "texts"}, "model.fusion.objects: got 'texts'"),
        ({"relation": []}, "model.fusion.relation: got 0, expected a whole number from 1 on"),
    ],
)
def test_what_it_cannot_do_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FUSION.clone(**settings).init(jax.random.key(0), cases.features())
