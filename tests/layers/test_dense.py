import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers import dense
from mmjax.layers.dense import Dense, product, spread
from mmjax.parallel.mesh import activation_rules, make_mesh

KERNEL = jax.random.normal(jax.random.key(1), (4, 5))
AXES_IN_FRONT = [(), (3,), (2, 3), (2, 3, 2)]


def tokens(*axes, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(0), (*axes, 4), dtype)


@pytest.fixture(params=[False, True], ids=["here", "on TPUs"])
def on_tpu(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(dense, "compiles_for_tpu", lambda: True)
    return request.param


@pytest.mark.parametrize(("features", "axes"), [(6, 1), ((3, 2), 1), (6, 2), ((3, 2), 2)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_the_layer_is_that_of_flax(features, axes, use_bias, on_tpu):
    """The initial parameters bit for bit; the result gradients, and tangents but on TPUs, up to rounding."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    ours = Dense(features, axes, use_bias)
    theirs = nn.DenseGeneral(features, axis=tuple(range(-axes, 0)), use_bias=use_bias)
    variables = theirs.init(jax.random.key(0), x)
    if use_bias:
        variables["params"]["bias"] += 0.5
    made = ours.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, made["params"]["kernel"], variables["params"]["kernel"])
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, variables)

    def all_of(module):
        run = lambda v, x: jnp.sin(module.apply(v, x)).sum()  # noqa: E731
        found = jax.value_and_grad(run, (0, 1))(variables, x)
        if on_tpu:
            return found
        return found, jax.jvp(run, (variables, x), jax.tree.map(jnp.ones_like, (variables, x)))

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, all_of(ours), all_of(theirs))


def test_parameters_may_come_from_a_file(on_tpu):
    x = tokens(2, 3)
    variables = Dense(5).init(jax.random.key(0), x)
    found = Dense(5).apply(jax.tree.map(np.asarray, variables), x)
    np.testing.assert_array_equal(found, Dense(5).apply(variables, x))


@pytest.mark.parametrize("axes", AXES_IN_FRONT)
def test_product(axes, on_tpu):
    def run(product):
        return jax.value_and_grad(lambda x, k: jnp.sin(product(x, k)).sum(), (0, 1))(tokens(*axes), KERNEL)

    assert product(tokens(*axes), KERNEL).shape == (*axes, 5)
    found, expected = run(product), run(lambda x, k: jnp.einsum("...d,df->...f", x, k))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


def operands_of_gradient():
    """Shapes of what the gradient of a kernel multiplies, for three axes."""
    jaxpr = jax.make_jaxpr(jax.grad(lambda x, k: product(x, k).sum(), 1))(tokens(2, 3), KERNEL).jaxpr
    products = [e for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    return sorted(v.aval.shape for v in products[-1].invars)


def test_rows_are_merged_on_cpus_alone(on_tpu):
    if jax.default_backend() == "cpu" and not on_tpu:
        assert operands_of_gradient() == [(6, 4), (6, 5)]
    else:
        assert operands_of_gradient() == [(2, 3, 4), (2, 3, 5)]


def test_split_tokens_are_not_merged():
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1, "sequence": 2}, jax.devices()[:2])
    with activation_rules(mesh):
        assert operands_of_gradient() == [(2, 3, 4), (2, 3, 5)]


def test_sums_of_bfloat16_are_taken_in_float32(monkeypatch):
    """One and many thousandths: a sum in bfloat16 would stay at one."""
    monkeypatch.setattr(dense, "compiles_for_tpu", lambda: True)
    gradient = jnp.full((3, 1000, 2), 0.001, jnp.bfloat16).at[0, 0].set(1.0)
    _, pull = jax.vjp(lambda bias: spread(bias, gradient.shape), jnp.zeros(2, jnp.bfloat16))
    np.testing.assert_allclose(np.float32(pull(gradient)[0]), 4.0, rtol=1e-2)


def loss(x, bias):
    return jnp.sin(x + spread(bias, x.shape)).sum()


@pytest.mark.parametrize(
    "gradient", [jax.vmap(jax.grad(loss, 1)), jax.vmap(jax.grad(jax.checkpoint(loss), 1))]
)
def test_sums_by_products_go_through_transformations(gradient, monkeypatch):
    x, bias = tokens(2, 3, 2), jnp.ones((2, 4)) / 3
    expected = gradient(x, bias)
    monkeypatch.setattr(dense, "compiles_for_tpu", lambda: True)
    np.testing.assert_allclose(gradient(x, bias), expected, rtol=1e-5, atol=1e-6)
