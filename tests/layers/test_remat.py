"""What each way of recomputing keeps, and that none of them changes a gradient."""

import functools
import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import components, schema
from mmjax.components import Text
from mmjax.errors import ConfigError
from mmjax.layers.remat import POLICIES, rematerialised
from mmjax.layers.stacking import stack_blocks
from mmjax.layers.transformer import BlockSettings, Transformer, TransformerBlock

SETTINGS = BlockSettings(width=8, heads=2, mlp_width=12)
CHOICES = (False, "dots", "elementwise", "dots_with_no_batch_dims", True)  # from what keeps most


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (2, 16, 8))


def total(variables, x, remat, scan):
    return jnp.sin(Transformer(2, SETTINGS, remat=remat, scan=scan).apply(variables, x)).sum()


def kept_bytes(x, remat, scan):
    """Of all that the forward pass leaves to the backward pass."""
    variables = jax.eval_shape(Transformer(2, SETTINGS, scan=scan).init, jax.random.key(1), x)
    pull_back = jax.eval_shape(lambda v: jax.vjp(lambda v: total(v, x, remat, scan), v)[1], variables)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull_back))


@pytest.mark.parametrize("scan", [False, True])
def test_each_policy_keeps_less_than_the_one_before(x, scan):
    kept = [kept_bytes(x, remat, scan) for remat in CHOICES]
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == len(kept), kept
    scores = 2 * x.shape[0] * SETTINGS.heads * x.shape[1] ** 2 * 4  # of two layers
    assert kept[1] - kept[2] >= scores


def test_gradients_are_the_same(x):
    variables = jax.jit(Transformer(2, SETTINGS).init)(jax.random.key(1), x)
    gradient = functools.partial(jax.jit, static_argnums=(2, 3))(jax.grad(total))
    expected = gradient(variables, x, False, False)
    for remat in POLICIES:
        found = gradient(variables, x, remat, False)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)
        found = gradient({"params": stack_blocks(variables["params"])}, x, remat, True)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            found["params"],
            stack_blocks(expected["params"]),
        )


def test_the_names_of_a_config_are_the_policies():
    hint = typing.get_type_hints(schema.Config)["remat"]
    assert set(typing.get_args(hint)) == {False, True, *POLICIES}
    given = {"true": True, "False": False, "dots": "dots"}
    for text, choice in given.items():
        assert components.normalise(Text(text), hint, "remat") is choice
    assert components.normalise(True, hint, "remat") is True  # as a run has saved it
    for wrong in (1, 0, "full", Text("1")):
        with pytest.raises(ConfigError, match="remat: got .*; expected one of: false, true, dots, dots_with"):
            components.normalise(wrong, hint, "remat")
    with pytest.raises(ConfigError, match="remat: got 'full', expected one of: false, true, dots, dots_with"):
        rematerialised(TransformerBlock, "full", static_argnums=(3,))
