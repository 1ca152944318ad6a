import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.parallel.collectives import map_chunks, rows_against_all
from mmjax.parallel.mesh import AXES, activation_rules, batch_sharding, make_mesh, replicated

ROWS = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
COLUMNS = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
FACTOR = np.float32(0.7)


def compare(rows, columns, factor):
    """A row's number of columns that it exceeds, and a soft version of it that has a gradient."""
    products = factor * rows @ columns.T
    return (products > 0).sum(1), jnp.tanh(products).sum(1)


def gradients(function):
    def total(rows, columns, factor):
        return (function(compare, rows, columns, factor)[1] * jnp.arange(16.0)).sum()

    return jax.grad(total, argnums=(0, 1, 2))


@pytest.mark.parametrize(
    "sizes",
    [{"data": 8}, {"data": 4, "fsdp": 2}, {"fsdp": 2, "tensor": 4}, {"data": 2, "tensor": 2, "sequence": 2}],
    ids=str,
)
def test_on_any_mesh_equals_the_plain_call(sizes):
    mesh = make_mesh(dict.fromkeys(AXES, 1) | sizes)
    split, whole = batch_sharding(mesh), replicated(mesh)

    def run(*given):
        with activation_rules(mesh):
            return rows_against_all(compare, *given), gradients(rows_against_all)(*given)

    found = jax.jit(run, in_shardings=(split, split, whole))(ROWS, COLUMNS, FACTOR)
    plain = compare(ROWS, COLUMNS, FACTOR), gradients(lambda f, *given: f(*given))(ROWS, COLUMNS, FACTOR)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, plain)
    assert found[0][1].sharding.is_equivalent_to(split, 1)


def test_without_a_mesh_it_is_the_plain_call():
    found = rows_against_all(compare, ROWS, COLUMNS, FACTOR)
    np.testing.assert_array_equal(found, compare(ROWS, COLUMNS, FACTOR))


@pytest.mark.parametrize("chunk_size", [1, 3, 5, 16, 40])
def test_chunks_give_every_row_once(chunk_size):
    seen = []

    def function(part):
        seen.append(part["x"].shape[0])
        return {"square": part["x"] ** 2, "flag": ~part["flag"]}

    found = map_chunks(function, {"x": ROWS, "flag": ROWS[:, 0] > 0}, chunk_size)
    np.testing.assert_array_equal(found["square"], ROWS**2)
    np.testing.assert_array_equal(found["flag"], ROWS[:, 0] <= 0)
    assert max(seen) <= chunk_size
