import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers.mlp import ACTIVATIONS, MLP

PLAIN = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_slope_equal_the_plain_function(name):
    x = jnp.linspace(-6.0, 6.0, 101)
    for tangents in (1.0, -2.5):
        got = jax.jvp(ACTIVATIONS[name], (x,), (jnp.full_like(x, tangents),))
        expected = jax.jvp(PLAIN[name], (x,), (jnp.full_like(x, tangents),))
        np.testing.assert_allclose(got[0], expected[0], atol=1e-6)
        np.testing.assert_allclose(got[1], expected[1], atol=1e-6 * abs(tangents))
    gradient = jax.grad(lambda x: ACTIVATIONS[name](x).sum())(x)
    np.testing.assert_allclose(gradient, jax.grad(lambda x: PLAIN[name](x).sum())(x), atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_keeps_the_dtype(name):
    x = jnp.linspace(-3, 3, 7, dtype=jnp.bfloat16)
    y, slope = jax.jvp(ACTIVATIONS[name], (x,), (x,))
    assert y.dtype == slope.dtype == jnp.bfloat16


def test_gated_multiplies_two_projections():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4))
    module = MLP(hidden=6, activation="silu", gated=True, use_bias=False)
    variables = jax.jit(module.init)(jax.random.key(1), x)
    up, gate, down = (variables["params"][name]["kernel"] for name in ("up", "gate", "down"))
    assert jax.tree.map(jnp.shape, (up, gate, down)) == ((4, 6), (4, 6), (6, 4))
    expected = (jax.nn.silu(x @ gate) * (x @ up)) @ down
    np.testing.assert_allclose(module.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_dropout_only_in_training():
    x = jnp.ones((2, 3, 4))
    module = MLP(hidden=16, dropout=0.5)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    evaluated = module.apply(variables, x)
    trained = [module.apply(variables, x, True, rngs={"dropout": jax.random.key(seed)}) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(trained[0], trained[1])
    assert np.abs(trained[0] - trained[2]).max() > 1e-3
    assert np.abs(trained[0] - evaluated).max() > 1e-3
