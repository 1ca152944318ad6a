import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers.pooling import POOLINGS, AttentionPool

TOKENS = jnp.array([[[1.0], [5.0], [3.0], [9.0]], [[2.0], [4.0], [8.0], [6.0]], [[7.0], [7.0], [7.0], [7.0]]])
MASK = jnp.array([[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], bool)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", [3.0, 6.0, 0.0]),
        ("max", [5.0, 8.0, 0.0]),
        ("cls", [1.0, 4.0, 0.0]),
        ("last", [3.0, 8.0, 0.0]),
    ],
)
def test_by_hand(name, expected):
    np.testing.assert_allclose(POOLINGS[name](TOKENS, MASK)[:, 0], expected)


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_gets_no_gradient(name):
    gradient = jax.grad(lambda tokens: POOLINGS[name](tokens, MASK).sum())(TOKENS)
    np.testing.assert_array_equal(gradient[~MASK], 0.0)
    np.testing.assert_allclose(gradient[:2].sum(axis=1), 1.0)


def test_attention_pool_of_real_tokens_only():
    tokens = jax.random.normal(jax.random.key(0), (3, 4, 8))
    module = AttentionPool(heads=2, mlp_width=16)
    variables = jax.jit(module.init)(jax.random.key(1), tokens)
    apply = jax.jit(module.apply)
    pooled = apply(variables, tokens, MASK)
    assert pooled.shape == (3, 8)
    np.testing.assert_allclose(pooled[:1], apply(variables, tokens[:1, :3]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled[1:2], apply(variables, tokens[1:2, 1:3]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pooled[2], 0.0)

    def total(variables):
        return jnp.square(module.apply(variables, tokens, MASK)).sum()

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(variables)))
