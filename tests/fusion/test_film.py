"""FiLM: a block worked out with numpy, who conditions whom, and what a missing condition means."""

import by_hand
import fusion_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.fusion.common import stream_tokens
from mmjax.fusion.film import FiLM

relu = np.vectorize(lambda x: max(x, 0.0))


@pytest.fixture(scope="module")
def by_text():
    """(parameters, features, fused) of one block in which text modulates the others."""
    given, fusion = cases.features(), FiLM(width=4, depth=1, by=["text"])
    params = by_hand.disturb(jax.jit(fusion.init)(jax.random.key(0), given)["params"])
    return params, given, jax.jit(fusion.apply)({"params": params}, given)


def _block(p, name, x, gamma, beta):
    hidden = relu(by_hand.dense(p[f"{name}_in"], x))
    inner = by_hand.dense(p[f"{name}_inner"], hidden)
    inner = inner - inner.mean(axis=-1, keepdims=True)
    inner = inner / np.sqrt(np.square(inner).mean(axis=-1, keepdims=True) + 1e-6)
    return hidden + relu(gamma * inner + beta)


@pytest.mark.parametrize("row", [1, 3, 5])  # without audio; image only, so without the condition; full
def test_text_scales_and_shifts_the_normalised_channels(by_text, row):
    params, given, fused = by_text
    p, x = params["blocks_0"], by_hand.dense(params["image_projection"], given["image"].tokens[row])
    made = by_hand.dense(p["text_to_image"], given["text"].pooled[row]) if row != 3 else np.zeros(8)
    expected = _block(p, "image", x, 1 + made[:4], made[4:])
    tokens = stream_tokens(given | {"fused": fused}, "image")[row]
    np.testing.assert_allclose(tokens, expected, rtol=1e-4, atol=1e-5)


def test_nothing_conditions_the_condition(by_text):
    params, given, fused = by_text
    x = by_hand.dense(params["text_projection"], given["text"].tokens[5])
    expected = _block(params["blocks_0"], "text", x, 1.0, 0.0)
    tokens = stream_tokens(given | {"fused": fused}, "text")[5]
    np.testing.assert_allclose(tokens, expected, rtol=1e-4, atol=1e-5)
    pairs = {key for key in params["blocks_0"] if "_to_" in key}
    assert pairs == {"text_to_audio", "text_to_image"}


def test_several_conditions_add_up():
    given, fusion = cases.features(missing=False), FiLM(width=4, depth=1)
    params = by_hand.disturb(jax.jit(fusion.init)(jax.random.key(0), given)["params"])
    fused = jax.jit(fusion.apply)({"params": params}, given)
    p, means = params["blocks_0"], []
    for name, stream in given.items():
        made = sum(by_hand.dense(p[f"{o}_to_{name}"], given[o].pooled[5]) for o in given if o != name)
        x = by_hand.dense(params[f"{name}_projection"], stream.tokens[5])
        means.append(_block(p, name, x, 1 + made[:4], made[4:]).mean(axis=0))
    np.testing.assert_allclose(fused.pooled[5], np.mean(means, axis=0), rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only():
    given, fusion = cases.features(("image", "text")), FiLM(width=8, depth=1, dropout=0.5)
    apply, variables = jax.jit(fusion.apply, static_argnames="train"), cases.variables("film", tuple(given))
    rngs = {"dropout": jax.random.key(3)}
    quiet, noisy = (apply(variables, given, train=train, rngs=rngs).pooled for train in (False, True))
    np.testing.assert_allclose(quiet, cases.apply("film", given).pooled, rtol=1e-5, atol=1e-6)
    assert jnp.abs(noisy - quiet).max() > 0.01


def test_bad_settings_are_refused():
    given = cases.features()
    with pytest.raises(ConfigError, match=r"fusion.by: got 'txt' \(did you mean 'text'\?\), expected one of"):
        FiLM(by=["txt"]).init(jax.random.key(0), given)
    with pytest.raises(ConfigError, match="fusion.depth: got 0, expected a whole number from 1 on"):
        FiLM(depth=0).init(jax.random.key(0), given)
