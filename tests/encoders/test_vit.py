import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import SMALL, build

from mmjax.errors import ConfigError


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("variant", "patch", "published"),
    # Parameters of the classifiers with 1000 classes at 224 pixels: Touvron et al. 2020
    # (arXiv:2012.12877), table 1, for Ti, S, B (5M, 22M, 86M); here as timm counts them exactly.
    [("Ti", 16, 5_717_416), ("S", 16, 22_050_664), ("B", 16, 86_567_656), ("B", 32, 88_224_232)],
)
def test_parameter_counts_are_the_published_ones(variant, patch, published):
    encoder = build({"type": "vit", "variant": variant, "patch_size": patch})
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    features, variables = jax.eval_shape(encoder.init_with_output, jax.random.key(0), image)
    width = features.pooled.shape[-1]
    classifier = width * 1000 + 1000
    position_of_class_token = width  # which this one does not have
    assert count(variables["params"]) + classifier + position_of_class_token == published


def test_tokens_are_the_patches_row_by_row():
    """Without blocks' mixing, a token depends on its own patch only."""
    encoder = build({"type": "vit", **SMALL, "depth": 0, "patch_size": 4, "registers": 3})
    image = jnp.zeros((1, 8, 12, 3))
    variables = jax.jit(encoder.init)(jax.random.key(0), image)
    apply = jax.jit(encoder.apply)
    before = apply(variables, image)
    after = apply(variables, image.at[0, 4:, 8:].set(1.0))  # row 1, column 2
    assert before.tokens.shape == (1, 6, 16)
    changed = np.abs(before.tokens - after.tokens).max(axis=(0, 2)) > 1e-4
    np.testing.assert_array_equal(changed, [False] * 5 + [True])


def test_another_image_size_interpolates_the_positions():
    encoder = build({"type": "vit", **SMALL, "patch_size": 4})
    variables = jax.jit(encoder.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    larger = jax.jit(encoder.apply)(variables, jnp.zeros((1, 12, 16, 3)))
    assert larger.tokens.shape == (1, 12, 16)


def test_some_patches_only():
    encoder = build({"type": "vit", **SMALL, "patch_size": 4, "pooling": "mean"})
    image = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    mask = jnp.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)  # the upper half of the first
    variables = jax.jit(encoder.init)(jax.random.key(0), image)
    apply = jax.jit(encoder.apply)
    features = apply(variables, image, mask)
    other = apply(variables, image.at[0, 4:].set(9.0), mask)
    jax.tree.map(np.testing.assert_array_equal, features, other)
    np.testing.assert_allclose(features.pooled[0], features.tokens[0, :2].mean(0), rtol=1e-5, atol=1e-6)


def test_custom_needs_its_size():
    encoder = build({"type": "vit", "variant": "custom", "width": 16, "heads": 2})
    with pytest.raises(ConfigError, match="depth: is missing; variant 'custom' needs width, depth and heads"):
        jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def test_variant_with_one_field_changed():
    encoder = build({"type": "vit", "variant": "B", "depth": 1})
    variables = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    assert [name for name in variables["params"] if name.startswith("blocks")] == ["blocks_0"]
    assert variables["params"]["blocks_0"]["mlp"]["up"]["kernel"].shape == (768, 3072)
