import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import SMALL, build

from mmjax.encoders.wav2vec2 import receptive_field, spans
from mmjax.errors import ConfigError
from mmjax.layers.stacking import stack_blocks

TINY = {
    "type": "wav2vec2",
    **SMALL,
    "conv_widths": [6, 8],
    "conv_kernels": [10, 3],
    "conv_strides": [5, 2],
    "position_kernel": 4,
    "position_groups": 2,
}
LARGE = {"variant": "L", "conv_norm": "layer", "conv_bias": True, "norm_position": "pre"}


def shapes(spec, samples):
    x = jax.ShapeDtypeStruct((1, samples), jnp.float32)
    return jax.eval_shape(build(spec).init_with_output, jax.random.key(0), x)


@pytest.mark.parametrize(
    ("change", "published"),
    # As Hugging Face's Wav2Vec2Model counts them: BASE (95M in the paper, with its quantiser) and
    # LARGE (LV-60). Weight normalisation has one number more per place of the kernel of positions.
    [({}, 94_371_712), (LARGE, 315_438_720)],
)
def test_parameter_counts_are_the_published_ones(change, published):
    features, variables = shapes({"type": "wav2vec2", "mask_time_prob": 0.05, **change}, 16000)
    assert features.tokens.shape[:2] == (1, 49)  # about 20 ms each
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count + 128 == published


def test_receptive_field():
    assert receptive_field([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]) == 400  # 25 ms
    assert receptive_field([10, 3], [5, 2]) == 20


def test_frames_are_real_where_all_their_samples_are():
    encoder = build(TINY)
    x = jax.random.normal(jax.random.key(1), (4, 60))
    mask = jnp.arange(60) < jnp.array([[60], [39], [20], [19]])
    variables = jax.jit(encoder.init)(jax.random.key(0), x)
    features = jax.jit(encoder.apply)(variables, x, mask)
    np.testing.assert_array_equal(features.mask.sum(axis=1), [5, 2, 1, 0])
    np.testing.assert_array_equal(features.pooled[3], 0.0)
    np.testing.assert_allclose(features.pooled[0], features.tokens[0].mean(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", [{}, {"conv_norm": "layer", "norm_position": "pre"}])
def test_an_example_alone_and_in_a_padded_batch(change):
    encoder = build({**TINY, **change})
    x = jax.random.normal(jax.random.key(1), (2, 60))
    variables = jax.jit(encoder.init)(jax.random.key(0), x)
    apply = jax.jit(encoder.apply)
    padded = apply(variables, x, jnp.arange(60) < jnp.array([[60], [43]]))
    alone = apply(variables, x[1:, :43])
    frames = alone.tokens.shape[1]
    np.testing.assert_allclose(padded.tokens[1, :frames], alone.tokens[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(padded.pooled[1], alone.pooled[0], rtol=1e-4, atol=1e-5)


def test_spans():
    inside = np.asarray(spans(jax.random.key(0), 200, 300, 0.2, 10))
    # 1 - (1 - 0.2 / 10) ^ 10 of the places, for spans may overlap.
    assert abs(inside.mean() - 0.183) < 0.01
    # Spans that do not touch an end are no shorter than 10.
    edges = np.diff(np.pad(inside.astype(int), ((0, 0), (1, 1))), axis=1)
    for row in edges:
        starts, ends = np.flatnonzero(row == 1), np.flatnonzero(row == -1)
        assert all(e - s >= 10 for s, e in zip(starts, ends, strict=True) if s > 0 and e < 300)


def test_masking_in_training():
    masking = {"mask_time_prob": 0.5, "mask_time_length": 2, "mask_feature_prob": 0.3}
    encoder = build({**TINY, **masking, "mask_feature_length": 1})
    x = jax.random.normal(jax.random.key(1), (4, 200))
    variables = jax.jit(encoder.init)(jax.random.key(0), x)
    apply = jax.jit(encoder.apply, static_argnames="train")

    def run(seed, train=True):
        return apply(variables, x, train=train, rngs={"dropout": jax.random.key(seed)}).pooled

    np.testing.assert_array_equal(run(2), run(2))
    assert np.abs(run(2) - run(3)).max() > 1e-3
    np.testing.assert_array_equal(run(2, train=False), run(3, train=False))

    def loss(params):
        features = encoder.apply({"params": params}, x, train=True, rngs={"dropout": jax.random.key(2)})
        return jnp.sin(features.tokens).sum()

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    assert np.abs(gradients["mask_vector"]).max() > 1e-3


def test_scanned_blocks_equal_unrolled_ones():
    x = jax.random.normal(jax.random.key(1), (2, 60))
    encoder = build({**TINY, "depth": 2})
    variables = jax.jit(encoder.init)(jax.random.key(0), x)
    scanned = build({**TINY, "depth": 2}, scan=True)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        jax.jit(encoder.apply)(variables, x),
        jax.jit(scanned.apply)({"params": stack_blocks(variables["params"])}, x),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_strides": [5]}, "conv_strides: got 1 convolutions, expected as many as conv_widths, 2"),
        ({"position_groups": 3}, "position_groups: got 3, expected a divisor of the width 16"),
        ({"conv_widths": [], "conv_kernels": [], "conv_strides": []}, "at least one convolution"),
        ({"conv_kernels": [60, 3]}, "got 60 samples, expected at least 70, one frame"),
    ],
)
def test_sizes_that_do_not_fit(change, message):
    with pytest.raises(ConfigError, match=message):
        shapes({**TINY, **change}, 60)
