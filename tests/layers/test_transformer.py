import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers.stacking import stack_blocks, unstack_blocks
from mmjax.layers.transformer import BlockSettings, Transformer, TransformerBlock, drop_path_rates

SETTINGS = BlockSettings(width=16, heads=2, mlp_width=24)


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (2, 4, 16))


@pytest.fixture
def mask():
    return jnp.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)


VARIANTS = {
    "pre": {},
    "post": {"norm_position": "post"},
    "rms_gated": {"norm": "rms", "gated_mlp": True, "mlp_bias": False, "activation": "silu"},
    "layer_scale": {"layer_scale": 0.1},
    "causal": {"causal": True},
    "cross": {"cross_attention": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant, x, mask):
    settings = dataclasses.replace(SETTINGS, **VARIANTS[variant])
    context = [x + 1.0, mask] if settings.cross_attention else []
    module = Transformer(1, settings)
    variables = jax.jit(module.init, static_argnums=3)(jax.random.key(1), x, mask, False, *context)
    padded = jnp.where(mask[..., None], x, 1e3)
    context_padded = [padded, mask] if context else []
    context_alone = [x[1:, :2] + 1.0] if context else []
    if context:
        context_padded[0] = jnp.where(mask[..., None], x + 1.0, -1e3)
    apply = jax.jit(module.apply, static_argnums=3)
    got = apply(variables, padded, mask, False, *context_padded)
    np.testing.assert_array_equal(got[mask], apply(variables, x, mask, False, *context)[mask])
    alone = apply(variables, x[1:, :2], None, False, *context_alone)
    np.testing.assert_allclose(got[1:, :2], alone, rtol=1e-4, atol=1e-5)


def test_one_block_by_hand(x, mask):
    """Pre-norm: y = x + attention(norm(x)), then y + mlp(norm(y)); post-norm: norm of each sum."""
    for position in ("pre", "post"):
        block = TransformerBlock(dataclasses.replace(SETTINGS, norm_position=position))
        variables = jax.jit(block.init)(jax.random.key(1), x, mask)
        bound = block.bind(variables)
        attention_mask = mask[:, None, None]
        if position == "pre":
            y = x + bound.attention(bound.attention_norm(x), mask=attention_mask)
            expected = y + bound.mlp(bound.mlp_norm(y))
        else:
            y = bound.attention_norm(x + bound.attention(x, mask=attention_mask))
            expected = bound.mlp_norm(y + bound.mlp(y))
        np.testing.assert_allclose(block.apply(variables, x, mask), expected, rtol=1e-5, atol=1e-5)


def test_a_whole_mask_says_which_token_sees_which(x):
    causal = TransformerBlock(dataclasses.replace(SETTINGS, causal=True))
    plain = TransformerBlock(SETTINGS)
    variables = jax.jit(plain.init)(jax.random.key(1), x)
    triangle = jnp.tril(jnp.ones((4, 4), bool))[None, None]
    np.testing.assert_allclose(
        jax.jit(plain.apply)(variables, x, triangle),
        jax.jit(causal.apply)(variables, x),
        rtol=1e-5,
        atol=1e-6,
    )


def test_remat_equals_no_remat(x, mask):
    settings = dataclasses.replace(SETTINGS, dropout=0.3)
    results = []
    for remat in (False, True):
        module = Transformer(2, settings, drop_path=0.2, remat=remat)
        variables = jax.jit(module.init)(jax.random.key(1), x, mask)

        def total(variables, module=module):
            rngs = {"dropout": jax.random.key(2)}
            return jnp.sin(module.apply(variables, x, mask, True, rngs=rngs)).sum()

        lowered = jax.jit(jax.value_and_grad(total)).lower(variables)
        assert ("optimization_barrier" in lowered.as_text()) == remat
        results.append(lowered.compile()(variables))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)


def test_drop_path_grows_with_depth_and_drops_whole_rows():
    assert drop_path_rates(3, 0.4) == [0.0, 0.2, 0.4]
    assert drop_path_rates(1, 0.4) == [0.0]
    block = TransformerBlock(SETTINGS)
    x = jax.random.normal(jax.random.key(2), (64, 2, 16))
    variables = jax.jit(block.init)(jax.random.key(0), x)
    y = block.apply(variables, x, None, True, drop_path=0.5, rngs={"dropout": jax.random.key(1)})
    untouched = np.all(y == x, axis=(1, 2)).mean()
    assert 0.1 < untouched < 0.4  # both branches dropped: 1/4


def test_layer_scale_starts_as_given(x):
    settings = dataclasses.replace(SETTINGS, layer_scale=1e-6)
    block = TransformerBlock(settings)
    variables = jax.jit(block.init)(jax.random.key(1), x)
    np.testing.assert_allclose(block.apply(variables, x), x, atol=1e-4)
    scale = variables["params"]["mlp_residual"]["layer_scale"]["scale"]
    np.testing.assert_allclose(scale, 1e-6)


def test_a_context_is_given_where_it_is_read(x):
    with pytest.raises(ValueError, match="expected no context"):
        TransformerBlock(SETTINGS).init(jax.random.key(0), x, None, False, x)
    settings = dataclasses.replace(SETTINGS, cross_attention=True)
    with pytest.raises(ValueError, match="expected a context"):
        TransformerBlock(settings).init(jax.random.key(0), x)


def test_compiled_step_grows_evenly_with_depth():
    """Each layer adds as many instructions as the one before: no fusion reaches across the depth."""

    def instructions(depth):
        module = Transformer(depth, SETTINGS)
        x = jax.ShapeDtypeStruct((2, 4, 16), jnp.float32)
        variables = jax.eval_shape(module.init, jax.random.key(0), x)
        step = jax.jit(jax.grad(lambda v, x: jnp.square(module.apply(v, x)).mean()))
        return step.lower(variables, x).compile().as_text().count(" = ")

    two, four, eight = (instructions(depth) for depth in (2, 4, 8))
    assert eight - four < 1.1 * 2 * (four - two)


@pytest.mark.parametrize("variant", ["pre", "post", "causal", "cross"])
def test_scanned_is_unrolled(variant, x, mask):
    """One scanned block over stacked parameters gives what the blocks one by one give, and their gradient."""
    settings = dataclasses.replace(SETTINGS, **VARIANTS[variant])
    arguments = (x, mask, False, *([x + 1.0, mask] if settings.cross_attention else []))
    unrolled = Transformer(3, settings)
    variables = jax.jit(unrolled.init, static_argnums=3)(jax.random.key(1), *arguments)
    stacked = {"params": stack_blocks(variables["params"])}

    def total(variables, module):
        return jnp.sin(module.apply(variables, *arguments)).sum()

    expected = jax.jit(jax.value_and_grad(total), static_argnums=1)(variables, unrolled)
    for remat in (False, True):
        scanned = Transformer(3, settings, scan=True, remat=remat)
        shapes = jax.eval_shape(lambda key, m=scanned: m.init(key, *arguments), jax.random.key(1))
        assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(lambda s: s.shape, shapes)
        value, gradient = jax.jit(jax.value_and_grad(total), static_argnums=1)(stacked, scanned)
        np.testing.assert_allclose(value, expected[0], rtol=1e-4, atol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            unstack_blocks(gradient["params"]),
            expected[1]["params"],
        )


def test_scanned_drops_by_depth():
    """The first block drops nothing, the last one everything: only its branches are gone."""
    x = jax.random.normal(jax.random.key(2), (2, 3, 16))
    one, two = (Transformer(depth, SETTINGS, drop_path=0.999, scan=True) for depth in (1, 2))
    variables = jax.jit(two.init)(jax.random.key(0), x)
    first = jax.tree.map(lambda a: a[:1], variables["params"]["blocks"])
    expected = one.apply({"params": {**variables["params"], "blocks": first}}, x)
    got = two.apply(variables, x, None, True, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_stacks_are_taken_apart_and_put_together():
    leaf = np.arange(6.0).reshape(3, 2)
    unrolled = {"a": {f"blocks_{i}": {"w": leaf[i]} for i in range(3)}, "norm": leaf}
    stacked = stack_blocks(unrolled)
    assert list(stacked["a"]) == ["blocks"]
    np.testing.assert_array_equal(stacked["a"]["blocks"]["w"], leaf)
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(stacked), unrolled)
    with pytest.raises(ValueError, match="layers differ"):
        stack_blocks({"blocks_0": {"w": leaf}, "blocks_1": {"w": leaf[0]}})


def test_a_bias_is_added_to_the_scores(x):
    block = TransformerBlock(SETTINGS)
    variables = jax.jit(block.init)(jax.random.key(1), x)
    only_self = jnp.where(jnp.eye(4, dtype=bool), 0.0, -1e9)[None, None]
    mask = jnp.eye(4, dtype=bool)[None, None]
    np.testing.assert_allclose(
        block.apply(variables, x, bias=only_self), block.apply(variables, x, mask), rtol=1e-5, atol=1e-5
    )
