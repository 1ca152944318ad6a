import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers import products
from mmjax.layers.products import product_of_rows
from mmjax.parallel.mesh import activation_rules, make_mesh

KERNEL = jax.random.normal(jax.random.key(1), (4, 5))
AXES_IN_FRONT = [(), (3,), (2, 3), (2, 3, 2)]


def tokens(*axes):
    return jax.random.normal(jax.random.key(0), (*axes, 4))


@pytest.mark.parametrize("axes", AXES_IN_FRONT)
@pytest.mark.parametrize("on_tpu", [False, True])
def test_value_and_gradients(axes, on_tpu, monkeypatch):
    monkeypatch.setattr(products, "compiles_for_tpu", lambda: on_tpu)

    def run(product):
        return jax.value_and_grad(lambda x, k: jnp.sin(product(x, k)).sum(), (0, 1))(tokens(*axes), KERNEL)

    assert product_of_rows(tokens(*axes), KERNEL).shape == (*axes, 5)
    found, expected = run(product_of_rows), run(lambda x, k: jnp.einsum("...d,df->...f", x, k))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


def products_of_gradient():
    """Shapes that the products of the gradient of three axes multiply."""

    def loss(x, k):
        return product_of_rows(x, k).sum()

    jaxpr = jax.make_jaxpr(jax.grad(loss, 1))(tokens(2, 3), KERNEL)
    return [
        sorted(v.aval.shape for v in e.invars) for e in jaxpr.jaxpr.eqns if e.primitive.name == "dot_general"
    ][-1]


def test_rows_are_merged_on_cpus_alone(monkeypatch):
    if jax.default_backend() == "cpu":
        assert products_of_gradient() == [(6, 4), (6, 5)]
    monkeypatch.setattr(products, "compiles_for_tpu", lambda: True)
    assert products_of_gradient() == [(2, 3, 4), (2, 3, 5)]


def test_split_tokens_are_not_merged():
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1, "sequence": 2}, jax.devices()[:2])
    with activation_rules(mesh):
        assert products_of_gradient() == [(2, 3, 4), (2, 3, 5)]


def test_another_product_is_refused():
    with pytest.raises(ValueError, match="product_of_rows got the dimension numbers"):
        product_of_rows(tokens(3), KERNEL, (((0,), (0,)), ((), ())))
