import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import build

from mmjax.errors import ConfigError

X = jnp.arange(24.0).reshape(2, 4, 3) + 1
MASK = jnp.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)


def test_vectors_side_by_side_with_zeros_for_padding():
    flat = build({"type": "flatten", "length": 5}).apply({}, X, MASK)
    expected = np.zeros((2, 5, 3))
    expected[0, :4], expected[1, :2] = X[0], X[1, :2]
    np.testing.assert_array_equal(flat.pooled, expected.reshape(2, 15))
    np.testing.assert_array_equal(flat.tokens[:, 0], flat.pooled)


def test_tokens_of_an_encoder_side_by_side():
    spec = {"type": "rnn", "width": 2}
    inner, outer = build(spec), build({"type": "flatten", "length": 4, "encoder": spec})
    variables = jax.jit(outer.init)(jax.random.key(0), X, MASK)
    tokens = inner.apply({"params": variables["params"]["encoder"]}, X, MASK).tokens
    assert np.abs(tokens[0]).min() > 0
    np.testing.assert_array_equal(outer.apply(variables, X, MASK).pooled, tokens.reshape(2, 8))


@pytest.mark.parametrize("spec", [{"type": "flatten"}, {"type": "mlp", "widths": [2]}])
def test_longer_sequences_are_refused(spec):
    with pytest.raises(ConfigError, match=rf"{spec['type']}.length: got 3, expected 4 or more tokens"):
        jax.eval_shape(build({**spec, "length": 3}).init, jax.random.key(0), X)


def test_residual_layers_of_one_width():
    encoder = build({"type": "mlp", "widths": [5, 5, 2], "length": 4, "residual": True})
    variables = jax.jit(encoder.init)(jax.random.key(0), X, MASK)
    x = np.asarray(build({"type": "flatten", "length": 4}).apply({}, X, MASK).pooled)

    def layer(i, x):
        params = variables["params"][f"layers_{i}"]
        return np.maximum(x @ params["kernel"] + params["bias"], 0)

    first = layer(0, x)
    expected = layer(2, first + layer(1, first))
    np.testing.assert_allclose(encoder.apply(variables, X, MASK).pooled, expected, rtol=1e-5, atol=1e-5)
