import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import build

from mmjax.errors import ConfigError

SMALL = {"type": "convnext", "variant": "custom", "depths": [1, 1], "widths": [8, 16]}


def shapes(spec, height, width):
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    return jax.eval_shape(build(spec).init_with_output, jax.random.key(0), image)


@pytest.mark.parametrize(
    ("variant", "published"),
    # Parameters of the classifiers with 1000 classes (29M, 50M, 89M, 198M, 350M in the paper, tables 1
    # and 12), as torchvision and timm count them exactly.
    [("T", 28_589_128), ("S", 50_223_688), ("B", 88_591_464), ("L", 197_767_336), ("XL", 350_196_968)],
)
def test_parameter_counts_are_the_published_ones(variant, published):
    features, variables = shapes({"type": "convnext", "variant": variant}, 224, 224)
    width = features.pooled.shape[-1]
    assert features.tokens.shape == (1, 49, width)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count + width * 1000 + 1000 == published


def test_pixels_that_make_no_whole_patch_are_left_out():
    assert shapes(SMALL, 35, 23)[0].tokens.shape == (1, 4 * 2, 16)
    encoder = build(SMALL)
    image = jax.random.normal(jax.random.key(1), (1, 35, 23, 3))
    variables = jax.jit(encoder.init)(jax.random.key(0), image)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        jax.jit(encoder.apply)(variables, image),
        jax.jit(encoder.apply)(variables, image[:, :32, :16]),
    )


def test_drop_path_drops_whole_examples_in_training():
    encoder = build({**SMALL, "drop_path": 0.5, "layer_scale": None})
    image = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (32, 32, 3)), (16, 32, 32, 3))
    variables = jax.jit(encoder.init)(jax.random.key(0), image)
    apply = jax.jit(encoder.apply, static_argnames="train")
    tokens = apply(variables, image, train=True, rngs={"dropout": jax.random.key(2)}).tokens
    # Only the last block drops: each example has it, or has it not.
    assert len(np.unique(np.round(tokens[:, 0, 0], 4))) == 2
    again = apply(variables, image, rngs={"dropout": jax.random.key(2)}).tokens
    assert len(np.unique(np.round(again[:, 0, 0], 4))) == 1


def test_pooled_is_normalised():
    encoder = build(SMALL)
    image = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    variables = jax.jit(encoder.init)(jax.random.key(0), image)
    pooled = jax.jit(encoder.apply)(variables, image).pooled
    np.testing.assert_allclose(pooled.mean(axis=-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(pooled.std(axis=-1), 1.0, rtol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": None}, "widths: is missing; variant 'custom' needs depths and widths"),
        ({"depths": [1]}, "depths: got 1 stages, expected as many as widths, 2"),
        ({"depths": [0, 1]}, "expected at least one block in each stage"),
        ({"patch_size": 32}, "got images of 32 x 32 pixels, expected at least 64 x 64"),
    ],
)
def test_sizes_that_do_not_fit(change, message):
    with pytest.raises(ConfigError, match=message):
        shapes({**SMALL, **change}, 32, 32)
