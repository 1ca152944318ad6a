import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import SMALL, build

from mmjax.encoders.whisper import whisper_positions
from mmjax.errors import ConfigError
from mmjax.layers.stacking import stack_blocks

SPEC = {"type": "whisper", **SMALL}


def initialised(x, **fields):
    encoder = build({**SPEC, **fields})
    return jax.jit(encoder.init)(jax.random.key(0), x), jax.jit(encoder.apply)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "published"),
    # tiny, base and large, as transformers counts the encoders' parameters, positions included.
    [(384, 4, 6, 8_208_384), (512, 6, 8, 20_590_592), (1280, 32, 20, 636_784_640)],
)
def test_sizes_of_the_published_models(width, depth, heads, published):
    spec = {"type": "whisper", "variant": "custom", "width": width, "depth": depth, "heads": heads}
    x = jax.ShapeDtypeStruct((1, 3000, 80), jnp.float32)
    features, variables = jax.eval_shape(build(spec).init_with_output, jax.random.key(0), x)
    assert features.tokens.shape == (1, 1500, width)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count + 1500 * width == published


def test_positions_reach_from_one_radian_to_a_ten_thousandth_per_token():
    table = whisper_positions(3, 8)
    rates = [1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3), 1e-4]
    expected = [[*np.sin(np.multiply(rates, t)), *np.cos(np.multiply(rates, t))] for t in range(3)]
    np.testing.assert_allclose(table, expected, rtol=1e-6)


def test_what_a_frame_reaches():
    """Without blocks, token j sees frames 2j - 2 to 2j + 2: two convolutions over three."""
    x = jax.random.normal(jax.random.key(1), (1, 12, 5))
    variables, apply = initialised(x, depth=0)
    before, after = apply(variables, x), apply(variables, x.at[0, 7].add(1.0))
    changed = np.abs(before.tokens - after.tokens).max(axis=(0, 2)) > 1e-4
    np.testing.assert_array_equal(changed, [False, False, False, True, True, False])


def test_attended_padding_counts_as_sound_and_a_missing_clip_is_missing():
    x = jax.random.normal(jax.random.key(1), (2, 6, 5))
    variables, apply = initialised(x, attend_padding=True)
    features, whole = apply(variables, x, jnp.arange(6) < jnp.array([[3], [0]])), apply(variables, x)
    np.testing.assert_array_equal(features.mask, [[True] * 3, [False] * 3])
    np.testing.assert_array_equal(features.tokens[0], whole.tokens[0])
    np.testing.assert_array_equal(features.pooled[0], whole.pooled[0])
    np.testing.assert_array_equal(features.pooled[1], 0)


def test_a_scanned_stack_is_the_same():
    x = jax.random.normal(jax.random.key(1), (2, 6, 5))
    variables, apply = initialised(x, depth=2)
    scanned = jax.jit(build({**SPEC, "depth": 2}, scan=True, remat=True).apply)
    stacked = {"params": stack_blocks(variables["params"])}
    np.testing.assert_allclose(apply(variables, x).tokens, scanned(stacked, x).tokens, rtol=1e-4, atol=1e-5)


def test_too_long_for_the_table():
    with pytest.raises(ConfigError, match="max_length: is 2, got 3 tokens"):
        initialised(jnp.zeros((1, 6, 5)), position="learned", max_length=2)
