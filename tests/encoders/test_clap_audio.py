import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import build

from mmjax.encoders.clap_audio import fold, nearest, stretch, unfold
from mmjax.errors import ConfigError

SMALL = {
    "type": "clap_audio",
    "variant": "custom",
    "width": 8,
    "depths": [1, 1],
    "heads": [2, 2],
    "spec_size": 16,
    "frames": 32,
    "patch_size": 2,
    "patch_stride": 2,
    "window": 4,
}


def shapes(spec, frames, bins):
    x = jax.ShapeDtypeStruct((1, frames, bins), jnp.float32)
    return jax.eval_shape(build(spec).init_with_output, jax.random.key(0), x)


@pytest.mark.parametrize(
    ("variant", "published"),
    # As Hugging Face's ClapAudioModel counts them.
    [("tiny", 27_534_488), ("base", 67_824_408)],
)
def test_parameter_counts_are_the_published_ones(variant, published):
    features, variables = shapes({"type": "clap_audio", "variant": variant}, 1001, 64)
    assert features.tokens.shape == (1, 64, {"tiny": 768, "base": 1024}[variant])
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == published


def test_stretch_goes_through_the_frames_and_stays_level():
    x = jax.random.normal(jax.random.key(0), (2, 11, 3))
    np.testing.assert_allclose(stretch(x, 31)[:, ::3], x, atol=1e-6)
    np.testing.assert_allclose(stretch(jnp.ones((1, 11, 3)), 40), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(stretch(x, 11), x)
    assert stretch(x[:, :1], 4).shape == (2, 4, 3)


def test_nearest_names_every_frame():
    np.testing.assert_array_equal(np.unique(nearest(7, 12)), np.arange(7))
    np.testing.assert_array_equal(nearest(5, 5), np.arange(5))


def test_time_and_frequency_find_their_place_again():
    """Frames [T, C] -> image -> tokens by moment, then frequency: the order they came in."""
    x = jnp.arange(2 * 12 * 5.0).reshape(2, 12, 5)
    image = fold(x, 3)
    assert image.shape == (2, 15, 4)
    np.testing.assert_array_equal(image[0, 5 + 2, 1], x[0, 4 + 1, 2])
    np.testing.assert_array_equal(unfold(image[..., None], 3)[..., 0], x.reshape(2, 60))


def test_what_a_frame_changes():
    """With one window per quarter of the grid, a sound at the start leaves the other tokens alone."""
    encoder = build({**SMALL, "depths": [1], "heads": [2], "patch_stride": 1, "patch_size": 1})
    x = jax.random.normal(jax.random.key(1), (1, 32, 8))
    variables = jax.jit(encoder.init)(jax.random.key(0), x)
    apply = jax.jit(encoder.apply)
    before, after = apply(variables, x), apply(variables, x.at[0, 2, 5].add(3.0))
    changed = (np.abs(before.tokens - after.tokens).max(axis=(0, 2)) > 0).reshape(32, 8)
    expected = np.zeros((32, 8), bool)
    expected[:4, 4:] = True
    np.testing.assert_array_equal(changed, expected)


def test_tokens_of_padding_are_not_real():
    encoder = build(SMALL)
    x = jax.random.normal(jax.random.key(1), (2, 32, 8))
    variables = jax.jit(encoder.init)(jax.random.key(0), x)
    mask = jnp.arange(32) < jnp.array([[32], [9]])
    features = jax.jit(encoder.apply)(variables, x, mask)
    # 8 moments of 4 frames, each of 2 frequencies: 9 frames reach into the third moment.
    np.testing.assert_array_equal(features.mask.sum(axis=1), [16, 6])
    np.testing.assert_allclose(features.pooled[1], features.tokens[1, :6].mean(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "frames", "bins", "message"),
    [
        ({"heads": None}, 32, 8, "heads: is missing; variant 'custom' needs width, depths and heads"),
        ({"heads": [2]}, 32, 8, "depths: got 2 stages, expected as many as heads, 1"),
        ({}, 32, 7, "spec_size: got 16, expected a multiple of the 7 mel bins"),
        ({}, 40, 8, r"got 40 frames, expected at most 32 \(frames\)"),
        ({"frames": 33}, 32, 8, "frames: got 33, expected at most 32"),
        ({"patch_size": 3}, 32, 8, "patch_size: got 3, expected patch_stride, 2, or an even number more"),
        ({"window": 3}, 32, 8, "spec_size: got 16, expected a multiple of 12"),
        ({"window": 1, "spec_size": 4}, 4, 2, "rows of the last grid that divide by the 2 pieces of time"),
    ],
)
def test_sizes_that_do_not_fit(change, frames, bins, message):
    with pytest.raises(ConfigError, match=message):
        shapes({**SMALL, "frames": frames if "spec_size" in change else 32, **change}, frames, bins)
