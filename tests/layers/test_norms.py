import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mmjax.layers import norms
from mmjax.layers.norms import BatchNorm, LayerNorm, RMSNorm, divide_by_rms, standardise


@pytest.fixture
def x():
    return 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (2, 3, 8))


def randomised(variables):
    """Parameters away from their initial ones and zeros."""
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    return tree.unflatten([a + jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (LayerNorm(eps=1e-3), nn.LayerNorm(epsilon=1e-3, use_fast_variance=False)),
        (LayerNorm(use_bias=False), nn.LayerNorm(use_bias=False, use_fast_variance=False)),
        (RMSNorm(eps=1e-3), nn.RMSNorm(epsilon=1e-3)),
    ],
)
def test_values_and_gradients_equal_flax(ours, theirs, x):
    variables = randomised(ours.init(jax.random.key(0), x))

    def total(module):
        return jax.jit(jax.value_and_grad(lambda v, x: jnp.sum(jnp.sin(module.apply(v, x))), argnums=(0, 1)))

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, total(ours)(variables, x), total(theirs)(variables, x))


@pytest.mark.parametrize("function", [standardise, divide_by_rms])
def test_written_out_derivatives(function, x):
    jitted = jax.jit(lambda x: function(jnp.asarray(x), 1e-2))
    check_grads(jitted, (x[0],), order=2, modes=["fwd", "rev"], rtol=0.02, atol=0.02)


def test_one_pass_on_tpus_is_the_same(x, monkeypatch):
    def value_and_gradient():
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(standardise(x, 1e-3)))))(x)

    expected = value_and_gradient()
    monkeypatch.setattr(norms, "compiles_for_tpu", lambda: True)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, value_and_gradient(), expected)


def test_zero_centred_scale_is_one_more(x):
    variables = randomised(RMSNorm().init(jax.random.key(0), x))
    less = jax.tree.map(lambda scale: scale - 1.0, variables)
    np.testing.assert_allclose(
        RMSNorm(zero_centred=True).apply(less, x), RMSNorm().apply(variables, x), rtol=1e-5
    )
    initial = RMSNorm(zero_centred=True).init(jax.random.key(0), x)
    np.testing.assert_array_equal(initial["params"]["scale"], 0.0)


def test_statistics_are_float32_in_bfloat16():
    # In bfloat16 the mean of values near 256 would be off by as much as their spread.
    x = 256.0 + jax.random.normal(jax.random.key(0), (4, 64)).astype(jnp.bfloat16).astype(jnp.float32)
    x = x.astype(jnp.bfloat16)
    module = LayerNorm(dtype=jnp.bfloat16)
    y = module.apply(module.init(jax.random.key(0), x), x)
    wide = np.asarray(x, np.float64)
    exact = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float64), exact, rtol=1e-2, atol=1e-2)


def test_batch_norm_equals_flax(x):
    ours, theirs = BatchNorm(), nn.BatchNorm(momentum=0.9, use_fast_variance=False)
    variables = ours.init(jax.random.key(0), x)
    got, moved = ours.apply(variables, x, train=True, mutable=["batch_stats"])
    expected, expected_moved = theirs.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), moved, expected_moved)
    variables |= moved
    np.testing.assert_allclose(
        ours.apply(variables, x), theirs.apply(variables, x, use_running_average=True), rtol=1e-5, atol=1e-5
    )


def test_batch_norm_counts_real_positions_only(x):
    module = BatchNorm()
    variables = module.init(jax.random.key(0), x)
    mask = jnp.array([[True, True, False], [True, False, False]])
    padded = jnp.where(mask[..., None], x, 1e6)
    got, moved = module.apply(variables, padded, mask, train=True, mutable=["batch_stats"])
    alone, moved_alone = module.apply(variables, x[mask], train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(got[mask], alone, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), moved, moved_alone)


def test_batch_norm_without_any_real_position_keeps_its_statistics(x):
    module = BatchNorm()
    variables = module.init(jax.random.key(0), x)

    def total(params):
        y, moved = module.apply(
            {**variables, "params": params}, x, jnp.zeros((2, 1), bool), train=True, mutable=["batch_stats"]
        )
        return y.sum(), moved["batch_stats"]

    gradient, moved = jax.grad(total, has_aux=True)(variables["params"])
    jax.tree.map(np.testing.assert_array_equal, moved, variables["batch_stats"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
