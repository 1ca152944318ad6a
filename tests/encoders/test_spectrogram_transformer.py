import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import SMALL, build

from mmjax.errors import ConfigError

SPEC = {
    "type": "spectrogram_transformer",
    **SMALL,
    "patch_size": 4,
    "time_stride": 2,
    "frequency_stride": 3,
    "frames": 12,
}


def initialised(x, **fields):
    encoder = build({**SPEC, **fields})
    return jax.jit(encoder.init)(jax.random.key(0), x), jax.jit(encoder.apply)


def test_sizes_of_the_published_model():
    encoder = build({"type": "spectrogram_transformer", "variant": "B"})
    x = jax.ShapeDtypeStruct((1, 1024, 128), jnp.float32)
    features, variables = jax.eval_shape(encoder.init_with_output, jax.random.key(0), x)
    assert features.tokens.shape == (1, 101 * 12, 768)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    # As transformers counts them; it also has positions of the class and the distillation token.
    assert count + 2 * 768 == 86_187_264


def test_tokens_are_the_overlapping_patches_moment_by_moment():
    """Without blocks, a token depends on its own patch only."""
    x = jnp.zeros((1, 12, 10))
    variables, apply = initialised(x, depth=0)
    before, after = apply(variables, x), apply(variables, x.at[0, 5, 9].set(1.0))
    assert before.tokens.shape == (1, 5 * 3, 16)
    changed = (np.abs(before.tokens - after.tokens).max(axis=(0, 2)) > 1e-4).reshape(5, 3)
    expected = np.zeros((5, 3), bool)
    expected[[1, 2], 2] = True  # patches of frames 2..5 and 4..7, of the last four bins
    np.testing.assert_array_equal(changed, expected)


def test_pooled_is_the_mean_of_class_and_distillation_token():
    x = jax.random.normal(jax.random.key(1), (2, 12, 10))
    variables, apply = initialised(x, depth=0, final_norm="none")
    cls = variables["params"]["cls"]
    assert cls.shape == (2, 16)
    np.testing.assert_allclose(apply(variables, x).pooled, jnp.stack([cls.mean(axis=0)] * 2), rtol=1e-6)


def test_which_patches_are_real():
    x = jax.random.normal(jax.random.key(1), (4, 12, 4))
    variables, apply = initialised(x)
    lengths = jnp.array([12, 9, 2, 0])
    features = apply(variables, x, jnp.arange(12) < lengths[:, None])
    np.testing.assert_array_equal(features.mask.sum(axis=1), [5, 3, 1, 0])


def test_attended_padding_counts_as_sound_and_a_missing_clip_is_missing():
    x = jax.random.normal(jax.random.key(1), (2, 12, 4))
    variables, apply = initialised(x, attend_padding=True)
    features, whole = apply(variables, x, jnp.arange(12) < jnp.array([[5], [0]])), apply(variables, x)
    np.testing.assert_array_equal(features.mask, [[True] * 5, [False] * 5])
    np.testing.assert_array_equal(features.pooled[0], whole.pooled[0])
    np.testing.assert_array_equal(features.pooled[1], 0)


def test_positions_of_longer_clips_are_interpolated_and_of_shorter_ones_the_first():
    x = jnp.zeros((1, 12, 4))
    variables, apply = initialised(x, depth=0, final_norm="none")
    table = jnp.arange(5.0)[:, None, None] * jnp.ones((5, 1, 16))
    variables["params"]["positions"]["table"] = table

    def moments(frames):
        return apply(variables, jnp.zeros((1, frames, 4))).tokens[0, :, 0]

    np.testing.assert_allclose(moments(12), [0, 1, 2, 3, 4])
    np.testing.assert_allclose(moments(8), [0, 1, 2])
    np.testing.assert_allclose(moments(22), [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4], atol=1e-6)


def test_a_scanned_stack_is_the_same():
    from mmjax.layers.stacking import stack_blocks

    x = jax.random.normal(jax.random.key(1), (2, 12, 4))
    variables, apply = initialised(x, depth=2)
    scanned = jax.jit(build({**SPEC, "depth": 2}, scan=True, remat=True).apply)
    stacked = {"params": stack_blocks(variables["params"])}
    a, b = apply(variables, x), scanned(stacked, x)
    np.testing.assert_allclose(a.tokens, b.tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "fields", "message"),
    [
        ((1, 3, 8), {}, "got 3 frames of 8 mel bins, expected at least 4 of each"),
        ((1, 8, 3), {}, "got 8 frames of 3 mel bins, expected at least 4 of each"),
        ((1, 8, 8), {"frames": 3}, "frames: got 3, expected at least patch_size, 4"),
    ],
)
def test_what_is_smaller_than_a_patch(shape, fields, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(build({**SPEC, **fields}).init, jax.random.key(0), jnp.zeros(shape))
