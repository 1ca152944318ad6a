"""Concatenation: values worked out by hand, and what stands for a missing stream."""

import fusion_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.fusion.common import stream_tokens
from mmjax.fusion.concat import Concat
from mmjax.types import Features


def _params(variables):
    return jax.tree.map(np.asarray, variables["params"])


def test_it_is_one_matrix_times_the_concatenation():
    given, fusion = cases.features(missing=False), Concat(width=3)
    fused, variables = jax.jit(fusion.init_with_output)(jax.random.key(0), given)
    p = _params(variables)
    matrix = np.concatenate([p[f"{name}_projection"]["kernel"] for name in ("audio", "image", "text")])
    vectors = np.concatenate([given[name].pooled for name in ("audio", "image", "text")], axis=1)
    np.testing.assert_allclose(fused.pooled, vectors @ matrix + p["bias"], rtol=1e-5, atol=1e-6)
    text = np.where(given["text"].mask[:, :, None], given["text"].tokens, 0)
    expected = np.where(given["text"].mask[:, :, None], text @ p["text_projection"]["kernel"] + p["bias"], 0)
    np.testing.assert_allclose(
        stream_tokens(given | {"fused": fused}, "text"), expected, rtol=1e-5, atol=1e-6
    )


def test_by_hand():
    def one(value):
        return Features(jnp.full((1, 1, 1), value), jnp.ones((1, 1), bool), jnp.full((1, 1), value))

    params = {
        "a_projection": {"kernel": jnp.array([[2.0]])},
        "b_projection": {"kernel": jnp.array([[-1.0]])},
        "a_missing": jnp.array([10.0]),
        "b_missing": jnp.array([7.0]),
        "bias": jnp.array([0.5]),
    }
    given = {"a": one(3.0), "b": one(4.0)}
    fused = Concat(width=1).apply({"params": params}, given)
    assert fused.pooled.tolist() == [[2.0 * 3 - 4 + 0.5]]
    assert fused.tokens.tolist() == [[[6.5], [-3.5]]]
    absent = given["b"].replace(mask=jnp.zeros((1, 1), bool))
    fused = Concat(width=1).apply({"params": params}, given | {"b": absent})
    assert fused.pooled.tolist() == [[2.0 * 3 - 7 + 0.5]]  # 7 stands for b
    assert fused.tokens.tolist() == [[[6.5], [0.0]]]


def test_starts_with_the_variance_of_a_kernel_over_the_whole():
    wide = Features(jnp.ones((1, 1, 300)), jnp.ones((1, 1), bool), jnp.ones((1, 300)))
    variables = Concat(width=200).init(jax.random.key(0), {"a": wide, "b": wide, "c": wide})
    for name in "abc":
        deviation = variables["params"][f"{name}_projection"]["kernel"].std()
        np.testing.assert_allclose(deviation, 900**-0.5, rtol=0.03)


def test_hidden_layers_are_an_mlp():
    given, fusion = cases.features(), Concat(width=3, hidden=[4, 5])
    fused, variables = jax.jit(fusion.init_with_output)(jax.random.key(0), given)
    p = _params(variables)
    row = 1  # without audio
    x = p["audio_missing"] @ p["audio_projection"]["kernel"] + p["bias"]
    for name in ("image", "text"):
        x = x + given[name].pooled[row] @ p[f"{name}_projection"]["kernel"]
    for i in range(2):
        x = jax.nn.gelu(x) @ p[f"layers_{i}"]["kernel"] + p[f"layers_{i}"]["bias"]
    np.testing.assert_allclose(fused.pooled[row], x, rtol=1e-5, atol=1e-6)


def test_dropout_acts_in_training_only():
    given, fusion = cases.features(), Concat(width=3, hidden=[50], dropout=0.5)
    apply = jax.jit(fusion.apply, static_argnames="train")
    expected, variables = jax.jit(Concat(width=3, hidden=[50]).init_with_output)(jax.random.key(0), given)
    rngs = {"dropout": jax.random.key(3)}
    quiet, noisy = (apply(variables, given, train=train, rngs=rngs) for train in (False, True))
    np.testing.assert_allclose(quiet.pooled, expected.pooled, rtol=1e-5, atol=1e-6)
    assert np.abs(noisy.pooled - quiet.pooled).max() > 0.01


def test_tokens_of_an_unknown_stream_are_an_error():
    given = cases.features()
    with pytest.raises(ConfigError, match="got stream 'txt', expected one of: audio, image, text"):
        stream_tokens(given | {"fused": given["text"]}, "txt")
