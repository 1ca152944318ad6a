import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_cases import build

from mmjax.encoders.image_descriptors import cell_means, colour_histogram, oriented_gradients
from mmjax.errors import ConfigError


def images(seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((2, 16, 16, 3)), jnp.float32)


def test_cell_means_are_those_of_the_rectangles():
    x = images()
    small = cell_means(x, 4, 2)
    assert small.shape == (2, 4, 2, 3)
    np.testing.assert_allclose(small[1, 2, 1], x[1, 8:12, 8:].mean(axis=(0, 1)), rtol=1e-6)


def test_colour_histogram_is_numpys():
    x = images()
    for one, histogram in zip(x, colour_histogram(x, 3), strict=True):
        counts, _ = np.histogramdd(np.asarray(one).reshape(-1, 3), bins=3, range=[(0, 1)] * 3)
        # Here the first channel is the lowest digit.
        np.testing.assert_allclose(histogram**2, counts.transpose(2, 1, 0).ravel() / 256, rtol=1e-5)
    ends = jnp.stack([jnp.zeros((4, 4, 3)), jnp.ones((4, 4, 3))])
    np.testing.assert_array_equal(colour_histogram(ends, 2), np.eye(8)[[0, 7]])


def test_colours_do_not_know_where_they_are():
    x = images()
    np.testing.assert_allclose(colour_histogram(x, 4), colour_histogram(x[:, ::-1], 4), rtol=1e-6)


@pytest.mark.parametrize(("direction", "orientation"), [((0, 1), 0), ((1, 1), 1), ((1, 0), 2), ((1, -1), 3)])
def test_the_direction_of_a_ramp_is_the_only_one_counted(direction, orientation):
    rows, columns = np.mgrid[:24, :24]
    ramp = jnp.asarray(direction[0] * rows + direction[1] * columns, jnp.float32)
    inside = oriented_gradients(ramp[None], 8, 4)[0, 1, 1]  # no border: there the difference is none
    np.testing.assert_allclose(inside / inside.max(), np.eye(4)[orientation], atol=2e-3)


def test_edges_are_the_same_in_a_negative_and_at_any_contrast():
    grey = images()[..., 0]
    edges = oriented_gradients(grey, 4, 6)
    np.testing.assert_allclose(oriented_gradients(1 - 0.5 * grey, 4, 6), edges, rtol=1e-3, atol=1e-3)
    flat = oriented_gradients(jnp.ones((1, 8, 8)), 4, 6)
    np.testing.assert_array_equal(flat, 0.0)


def encoder(**fields):
    return build({"type": "image_descriptors", "width": 8, "layout": 4, "bins": 2, "cell": 4, **fields})


def test_each_descriptor_has_the_same_length():
    """Of 4 * 4 * 3 values of layout, 2 ** 3 of colours and 16 cells * 8 of edges."""
    module = encoder(length=3.0)
    x = 2 * images() - 1
    params = module.init(jax.random.key(0), x)["params"]
    whole = np.zeros((48 + 8 + 128, 8), np.float32)
    seen = []
    for first, last in ((0, 48), (48, 56), (56, 184)):
        rows = []
        for i in range(first, last):
            kernel = whole.copy()
            kernel[i, 0] = 1.0
            changed = {**params, "whole": {**params["whole"], "kernel": jnp.asarray(kernel)}}
            rows.append(module.apply({"params": changed}, x).pooled[:, 0])
        seen.append(np.linalg.norm(np.stack(rows), axis=0))
    np.testing.assert_allclose(seen, 3.0, rtol=1e-4)


def test_values_outside_of_the_range_count_as_its_ends():
    x = 2 * images() - 1
    module = encoder()
    params = module.init(jax.random.key(0), x)
    beyond = jnp.where(x > 0.5, 7.0, x)
    np.testing.assert_array_equal(
        module.apply(params, beyond).pooled, module.apply(params, jnp.minimum(beyond, 1.0)).pooled
    )


def test_sizes_that_do_not_divide():
    with pytest.raises(ConfigError, match="image_descriptors.cell: got 5.*16 x 16"):
        encoder(cell=5).init(jax.random.key(0), images())
