"""Attention over tokens that are split over devices equals that of one device."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers.attention import dot_product_attention, token_mask
from mmjax.parallel.mesh import AXES, activation_rules, make_mesh, replicated

BATCH, HEADS, WIDTH = 4, 2, 4
TENSOR = {"data": 1, "fsdp": 2, "tensor": 2, "sequence": 2}
LONG = {"data": 2, "sequence": 4}


def heads(seed, length, batch=BATCH, count=HEADS):
    values = np.random.default_rng(seed).normal(size=(batch, length, count, WIDTH))
    return jnp.asarray(values, jnp.float32)


def padding(length, *real):
    return token_mask(jnp.arange(length) < jnp.array(real)[:, None])


def random_bias(*shape):
    return jnp.asarray(np.random.default_rng(5).normal(size=shape), jnp.float32)


def pairs(*shape):
    """Which query sees which key; the second query of the first example sees none."""
    seen = np.random.default_rng(6).random(shape) < 0.6
    seen[0, :, 1] = False
    return jnp.asarray(seen)


# name -> mesh, lengths of queries and keys, number of heads, mask, bias, causal
CASES = {
    "even": (LONG, (8, 8), 2, None, None, False),
    "causal": (LONG, (8, 8), 2, None, None, True),
    "odd": (TENSOR, (7, 7), 2, padding(7, 7, 4, 0, 1), None, False),
    "odd and causal": (LONG, (9, 9), 2, padding(9, 9, 5, 0, 7), None, True),
    "cross": (TENSOR, (3, 6), 2, padding(6, 6, 2, 0, 5), None, False),
    "one query": (LONG, (1, 5), 2, padding(5, 5, 2, 0, 5), random_bias(1, 2, 1, 5), False),
    "relative positions": (TENSOR, (5, 5), 2, None, random_bias(1, 2, 5, 5), True),
    "pairs": (TENSOR, (5, 7), 2, pairs(4, 1, 5, 7), random_bias(4, 1, 5, 7), False),
    "heads stay whole": (TENSOR, (6, 6), 3, pairs(1, 3, 6, 6), random_bias(1, 3, 6, 6), False),
}


def on_mesh(mesh, function):
    def run(*arrays):
        with activation_rules(mesh):
            return function(*arrays)

    return jax.jit(run, in_shardings=replicated(mesh))


def outputs_and_gradients(mesh, mask, causal, *arrays):
    def total(arrays):
        attended = dot_product_attention(*arrays[:3], mask, bias=arrays[3], causal=causal)
        return (attended * jnp.arange(attended.size).reshape(attended.shape)).sum(), attended

    def run(*arrays):
        (_, attended), gradients = jax.value_and_grad(total, has_aux=True)(arrays)
        return attended, gradients

    return on_mesh(mesh, run)(*arrays) if mesh else jax.jit(run)(*arrays)


@pytest.mark.parametrize("name", CASES)
def test_equals_one_device(name):
    sizes, (queries, keys), count, mask, bias, causal = CASES[name]
    arrays = (heads(0, queries, count=count), heads(1, keys, count=count), heads(2, keys, count=count), bias)
    mesh = make_mesh(dict.fromkeys(AXES, 1) | sizes)
    found = outputs_and_gradients(mesh, mask, causal, *arrays)
    expected = outputs_and_gradients(None, mask, causal, *arrays)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


def test_queries_without_keys_are_zero_and_pass_no_gradient():
    mesh = make_mesh(dict.fromkeys(AXES, 1) | LONG)
    arrays = (heads(0, 6), heads(1, 6), heads(2, 6), None)
    attended, gradients = outputs_and_gradients(mesh, padding(6, 6, 3, 0, 1), False, *arrays)
    np.testing.assert_array_equal(attended[2], 0.0)
    for gradient in gradients[:3]:
        assert np.isfinite(gradient).all() and np.abs(gradient[0]).max() > 0
        np.testing.assert_array_equal(gradient[2], 0.0)


def test_bfloat16_adds_up_in_float32():
    mesh = make_mesh(dict.fromkeys(AXES, 1) | LONG)
    arrays = [heads(i, 16).astype(jnp.bfloat16) for i in range(3)]
    exact = dot_product_attention(*(x.astype(jnp.float32) for x in arrays))
    found = on_mesh(mesh, dot_product_attention)(*arrays)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2**-7, atol=2**-8)


def test_no_device_holds_the_scores_of_the_whole_sequence():
    mesh = make_mesh(dict.fromkeys(AXES, 1) | LONG)
    length, parts = 96, 4
    arrays = [heads(i, length) for i in range(3)]

    def total(*arrays):
        return dot_product_attention(*arrays, causal=True).sum()

    compiled = on_mesh(mesh, jax.grad(total, argnums=(0, 1, 2))).lower(*arrays).compile()
    shapes = [tuple(map(int, s.split(","))) for s in re.findall(r"\w\d+\[([\d,]+)\]", compiled.as_text())]
    part = length // parts
    assert any(shape[-2:] == (part, part) for shape in shapes)
    assert not any(shape.count(length) > 1 or {part, length} <= set(shape) for shape in shapes)
