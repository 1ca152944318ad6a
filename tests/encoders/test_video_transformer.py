import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import SMALL, build

from mmjax.errors import ConfigError
from mmjax.layers.stacking import stack_blocks

SPEC = {"type": "video_transformer", **SMALL, "patch_size": 4}
VIVIT = {**SPEC, "position": "learned", "frames": 4, "pooling": "cls"}


def initialised(spec, x):
    encoder = build(spec)
    return jax.jit(encoder.init)(jax.random.key(0), x), jax.jit(encoder.apply)


def sizes(spec, frames):
    x = jax.ShapeDtypeStruct((1, frames, 224, 224, 3), jnp.float32)
    features, variables = jax.eval_shape(build(spec).init_with_output, jax.random.key(0), x)
    return features.tokens.shape, sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_sizes_of_the_published_models():
    """As transformers counts their parameters."""
    spec = {"type": "video_transformer", "variant": "B"}
    videomae = {**spec, "attention_biases": ["query", "value", "out"], "final_norm": "none"}
    assert sizes(videomae, 16) == ((1, 8 * 14 * 14, 768), 86_225_664)
    vivit = {**spec, "position": "learned", "frames": 32, "pooling": "cls", "pooler": True}
    position_of_class_token = 768  # which this one does not have
    assert sizes(vivit, 32) == ((1, 16 * 14 * 14, 768), 89_236_992 - position_of_class_token)


@pytest.mark.parametrize("spec", [SPEC, VIVIT])
def test_tokens_are_the_tubelets_moment_by_moment_and_row_by_row(spec):
    """Without blocks, a token depends on its own tubelet only."""
    x = jnp.zeros((1, 4, 8, 12, 3))
    variables, apply = initialised({**spec, "depth": 0}, x)
    before, after = apply(variables, x), apply(variables, x.at[0, 3, 4:, :4].set(1.0))
    assert before.tokens.shape == (1, 2 * 2 * 3, 16)
    changed = (np.abs(before.tokens - after.tokens).max(axis=(0, 2)) > 1e-4).reshape(2, 2, 3)
    np.testing.assert_array_equal(np.argwhere(changed), [[1, 1, 0]])


def test_an_odd_number_of_frames_is_filled_up():
    x = jax.random.normal(jax.random.key(1), (2, 3, 8, 8, 3))
    variables, apply = initialised(SPEC, x)
    filled = jnp.concatenate([x, jnp.zeros_like(x[:, :1])], axis=1)
    mask = jnp.arange(4) < jnp.array([[3], [2]])
    features = apply(variables, filled, mask)
    np.testing.assert_allclose(apply(variables, x).tokens[0], features.tokens[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(features.mask.sum(axis=1), [8, 4])


def test_positions_tell_time_from_space():
    x = jnp.zeros((1, 4, 8, 8, 3))
    for spec in (SPEC, VIVIT):
        variables, apply = initialised({**spec, "depth": 0, "final_norm": "none"}, x)
        assert len(np.unique(np.round(apply(variables, x).tokens[0], 5), axis=0)) == 8


def test_other_lengths_and_image_sizes_with_learned_positions():
    variables, apply = initialised({**VIVIT, "depth": 0, "final_norm": "none"}, jnp.zeros((1, 4, 8, 8, 3)))
    table = variables["params"]["positions"]["table"]
    assert table.shape == (2, 2, 2, 16)
    shorter = apply(variables, jnp.zeros((1, 2, 8, 8, 3))).tokens
    np.testing.assert_allclose(shorter[0], table[0].reshape(4, 16), rtol=1e-6)
    longer = apply(variables, jnp.zeros((1, 8, 8, 8, 3))).tokens.reshape(4, 2, 2, 16)
    np.testing.assert_allclose(longer[1], 0.75 * table[0] + 0.25 * table[1], rtol=1e-5, atol=1e-6)
    assert apply(variables, jnp.zeros((1, 4, 12, 16, 3))).tokens.shape == (1, 2 * 3 * 4, 16)


@pytest.mark.parametrize("spec", [SPEC, VIVIT])
def test_a_scanned_stack_is_the_same(spec):
    x = jax.random.normal(jax.random.key(1), (2, 4, 8, 8, 3))
    variables, apply = initialised({**spec, "depth": 2}, x)
    scanned = jax.jit(build({**spec, "depth": 2}, scan=True, remat=True).apply)
    stacked = {"params": stack_blocks(variables["params"])}
    np.testing.assert_allclose(apply(variables, x).tokens, scanned(stacked, x).tokens, rtol=1e-4, atol=1e-5)


def test_frames_that_do_not_divide_into_patches():
    with pytest.raises(ConfigError, match="patch_size: got 4, expected a divisor of the video's 8 x 6"):
        initialised(SPEC, jnp.zeros((1, 4, 8, 6, 3)))
    with pytest.raises(ConfigError, match="frames: got 0, and tubelet_size 2, expected 1 or more"):
        initialised({**VIVIT, "frames": 0}, jnp.zeros((1, 4, 8, 8, 3)))
