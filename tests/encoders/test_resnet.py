import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import build

from mmjax.errors import ConfigError

SMALL = {"type": "resnet", "variant": "custom", "block": "bottleneck", "depths": [1, 2], "widths": [8, 16]}


def shapes(spec, height, width):
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    return jax.eval_shape(build(spec).init_with_output, jax.random.key(0), image)


@pytest.mark.parametrize(
    ("variant", "published"),
    # Parameters of the classifiers with 1000 classes, as torchvision counts them.
    [("18", 11_689_512), ("34", 21_797_672), ("50", 25_557_032), ("101", 44_549_160), ("152", 60_192_808)],
)
def test_parameter_counts_are_the_published_ones(variant, published):
    features, variables = shapes({"type": "resnet", "variant": variant}, 224, 224)
    width = features.pooled.shape[-1]
    assert features.tokens.shape == (1, 49, 512 if variant in ("18", "34") else 2048)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count + width * 1000 + 1000 == published


def test_halving_in_the_first_stage():
    assert shapes(SMALL, 64, 32)[0].tokens.shape == (1, 8 * 4, 16)
    assert shapes({**SMALL, "downsample_in_first_stage": True}, 64, 32)[0].tokens.shape == (1, 4 * 2, 16)


def test_pooled_is_the_mean_of_the_tokens_and_tokens_are_row_by_row():
    encoder = build({**SMALL, "depths": [1], "widths": [8]})
    image = jax.random.normal(jax.random.key(1), (1, 256, 512, 3))
    variables = jax.jit(encoder.init)(jax.random.key(0), image)
    apply = jax.jit(encoder.apply)
    before = apply(variables, image)
    np.testing.assert_allclose(before.pooled, before.tokens.mean(axis=1), rtol=1e-4, atol=1e-5)
    after = apply(variables, image.at[0, 100, 300].add(9.0))
    changed = np.abs(before.tokens - after.tokens).max(axis=(0, 2)).reshape(64, 128) > 0
    rows, columns = np.nonzero(changed)
    assert abs(rows - 100 / 4).max() <= 4 and abs(columns - 300 / 4).max() <= 4


def test_where_the_stride_is():
    """Another kernel looks at every second position only, so the features differ."""
    image = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
    encoder = build(SMALL)
    variables = jax.jit(encoder.init)(jax.random.key(0), image)
    paper = build({**SMALL, "downsample_in_bottleneck": True})
    a = jax.jit(encoder.apply)(variables, image)
    b = jax.jit(paper.apply)(variables, image)
    assert a.tokens.shape == b.tokens.shape
    assert np.abs(a.tokens - b.tokens).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": None}, "widths: is missing; variant 'custom' needs block, depths and widths"),
        ({"depths": [1]}, "depths: got 1 stages, expected as many as widths, 2"),
        ({"depths": [1, 0]}, "expected at least one block in each stage"),
        ({"widths": [8, 18]}, "expected multiples of 4, for 'bottleneck'"),
    ],
)
def test_sizes_that_do_not_fit(change, message):
    with pytest.raises(ConfigError, match=message):
        shapes({**SMALL, **change}, 32, 32)
