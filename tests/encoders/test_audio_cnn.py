import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import build

from mmjax.errors import ConfigError

SPEC = {"type": "audio_cnn", "widths": [3, 2], "kernels": [5, 3], "padding": 1, "norm": "none"}
LENGTH = 11


@pytest.fixture(scope="module")
def case():
    encoder = build(SPEC)
    x = jax.random.normal(jax.random.key(0), (3, LENGTH, 2))
    variables = jax.jit(encoder.init)(jax.random.key(1), x)
    biases = jax.tree.map(lambda leaf: leaf + 0.1 * (leaf.ndim == 1), variables)  # which start at zero
    return encoder, x, biases


def convolved(x, params, kernel):
    """One convolution of stride 2 between one zero at each end, by its definition, and ReLU."""
    padded = np.pad(x, ((1, 1), (0, 0)))
    starts = range(0, len(padded) - kernel + 1, 2)
    sums = [np.einsum("kc,kcd->d", padded[t : t + kernel], params["kernel"]) for t in starts]
    return np.maximum(np.stack(sums) + params["bias"], 0)


@pytest.mark.parametrize("length", [LENGTH, 10, 7, 3])
def test_kernels_and_padding_of_their_own(case, length):
    """A sequence gives the same whatever it is padded to: what it gives alone."""
    encoder, x, variables = case
    mask = jnp.broadcast_to(jnp.arange(LENGTH) < length, (3, LENGTH))
    features = jax.jit(encoder.apply)(variables, jnp.where(mask[..., None], x, 1e3), mask)
    for row in range(3):
        expected = np.asarray(x[row, :length])
        for i, kernel in enumerate(SPEC["kernels"]):
            expected = convolved(expected, variables["params"][f"conv_{i}"], kernel)
        assert features.mask[row].sum() == len(expected)
        np.testing.assert_allclose(features.tokens[row, : len(expected)], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": [5]}, "audio_cnn.kernels: got 1, expected 2, one for each of widths"),
        ({"padding": 2}, "audio_cnn.padding: got 2, expected 0 to 1, half of the least kernel - 1"),
        ({"padding": -1}, "audio_cnn.padding: got -1, expected 0 to 1"),
    ],
)
def test_convolutions_that_do_not_fit(change, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(build({**SPEC, **change}).init, jax.random.key(0), jnp.zeros((3, LENGTH, 2)))
