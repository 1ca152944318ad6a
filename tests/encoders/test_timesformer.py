import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import SMALL, build

from mmjax.errors import ConfigError
from mmjax.layers.stacking import stack_blocks

SPEC = {"type": "timesformer", **SMALL, "patch_size": 4, "frames": 3}


def initialised(x, **fields):
    encoder = build({**SPEC, **fields})
    return jax.jit(encoder.init)(jax.random.key(0), x), jax.jit(encoder.apply)


def test_sizes_of_the_published_model():
    encoder = build({"type": "timesformer", "variant": "B"})
    x = jax.ShapeDtypeStruct((1, 8, 224, 224, 3), jnp.float32)
    features, variables = jax.eval_shape(encoder.init_with_output, jax.random.key(0), x)
    assert features.tokens.shape == (1, 8 * 14 * 14, 768)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    # 121.4M in table 2 of the paper; here as transformers counts them, without a classifier.
    position_of_class_token = 768  # which this one does not have
    assert count + position_of_class_token == 121_258_752


def test_what_a_patch_changes_in_one_block():
    """Its place in every frame by attention over time, then by attention over space all of each frame.

    With the output of attention over space at zero, the first half alone is seen.
    """
    x = jax.random.normal(jax.random.key(1), (1, 3, 8, 8, 3))
    variables, apply = initialised(x)
    attention = variables["params"]["blocks_0"]["attention"]
    attention["out"] = jax.tree.map(jnp.zeros_like, attention["out"])
    before, after = apply(variables, x), apply(variables, x.at[0, 1, :4, 4:].add(1.0))
    changed = (np.abs(before.tokens - after.tokens).max(axis=(0, 2)) > 1e-5).reshape(3, 4)
    np.testing.assert_array_equal(changed, [[False, True, False, False]] * 3)


def test_attention_over_space_stays_in_the_frame():
    x = jax.random.normal(jax.random.key(1), (1, 3, 8, 8, 3))
    variables, apply = initialised(x)
    dense = variables["params"]["blocks_0"]["temporal_dense"]
    variables["params"]["blocks_0"]["temporal_dense"] = jax.tree.map(jnp.zeros_like, dense)
    before, after = apply(variables, x), apply(variables, x.at[0, 1, :4, 4:].add(1.0))
    changed = (np.abs(before.tokens - after.tokens).max(axis=(0, 2)) > 1e-5).reshape(3, 4)
    np.testing.assert_array_equal(changed, [[False] * 4, [True] * 4, [False] * 4])
    assert np.abs(before.pooled - after.pooled).max() > 1e-5


def test_a_shorter_video_is_one_with_frames_that_are_not_real():
    x = jax.random.normal(jax.random.key(1), (2, 2, 8, 8, 3))
    variables, apply = initialised(x)
    features = apply(variables, x)
    np.testing.assert_array_equal(features.mask.sum(axis=1), [8, 8])
    assert features.tokens.shape == (2, 12, 16)
    padded = jnp.concatenate([x, 1e3 * jnp.ones_like(x[:, :1])], axis=1)
    again = apply(variables, padded, jnp.arange(3) < jnp.array([[2], [2]]))
    np.testing.assert_array_equal(features.mask, again.mask)
    np.testing.assert_allclose(features.tokens, again.tokens, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features.pooled, again.pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_remat_and_scan_are_the_same(scan):
    x = jax.random.normal(jax.random.key(1), (2, 3, 8, 8, 3))
    variables, apply = initialised(x, depth=2)
    other = build({**SPEC, "depth": 2}, scan=scan, remat=True)
    params = stack_blocks(variables["params"]) if scan else variables["params"]
    loss = lambda encoder, params: jnp.sum(jnp.sin(encoder.apply({"params": params}, x).tokens))  # noqa: E731
    lowered = jax.jit(jax.grad(lambda p: loss(other, p))).lower(params)
    # A scan is no place where recomputation could be undone, and needs no barrier.
    assert scan or "optimization_barrier" in lowered.as_text()
    gradient = jax.jit(jax.grad(lambda p: loss(build({**SPEC, "depth": 2}), p)))(variables["params"])
    expected = stack_blocks(gradient) if scan else gradient
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        lowered.compile()(params),
        dict(expected),
    )
    np.testing.assert_allclose(
        apply(variables, x).tokens, other.apply({"params": params}, x).tokens, rtol=1e-4, atol=1e-5
    )


def test_drop_path_drops_whole_examples_in_training():
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (3, 8, 8, 3)), (16, 3, 8, 8, 3))
    encoder = build({**SPEC, "depth": 2, "drop_path": 0.5})
    variables = jax.jit(encoder.init)(jax.random.key(0), x)
    apply = jax.jit(encoder.apply, static_argnames="train")
    tokens = apply(variables, x, train=True, rngs={"dropout": jax.random.key(2)}).tokens
    # Each of three branches of the last block is there or not.
    assert 2 < len(np.unique(np.round(tokens[:, 0, 0], 4))) <= 8


@pytest.mark.parametrize(
    ("shape", "fields", "message"),
    [
        ((1, 4, 8, 8, 3), {}, r"got 4 frames, expected at most 3 \(frames\)"),
        ((1, 3, 8, 6, 3), {}, "patch_size: got 4, expected a divisor of the image's 8 x 6 pixels"),
        ((1, 3, 8, 8, 3), {"norm_position": "post"}, "norm_position: got 'post'"),
    ],
)
def test_what_cannot_be_run(shape, fields, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(build({**SPEC, **fields}).init, jax.random.key(0), jnp.zeros(shape))


def test_tokens_of_a_fusion_do_not_fit():
    x = jnp.zeros((1, 3, 8, 8, 3))
    variables, _ = initialised(x)
    encoder = build(SPEC).bind(variables)
    tokens, _, _ = encoder.embed(x, None, False)
    with pytest.raises(ConfigError, match="timesformer: got 14 tokens in a block, expected a class token"):
        encoder.run(jnp.concatenate([tokens, tokens[:, :1]], axis=1), None, False)
