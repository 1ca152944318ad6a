import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.layers.position import (
    LearnedPositions,
    LearnedPositions2D,
    resize_positions,
    sinusoids,
    sinusoids_2d,
)


def test_sinusoids_by_hand():
    # Width 4: wavelengths 2 pi and 200 pi; sines first.
    table = sinusoids(3, 4)
    expected = [[np.sin(t), np.sin(t / 100), np.cos(t), np.cos(t / 100)] for t in range(3)]
    np.testing.assert_allclose(table, expected, rtol=1e-6, atol=1e-7)


def test_sinusoids_2d_hold_the_row_and_the_column():
    table = sinusoids_2d(2, 3, 8)
    assert table.shape == (2, 3, 8)
    for row in range(2):
        for column in range(3):
            np.testing.assert_array_equal(table[row, column, :4], sinusoids(2, 4)[row])
            np.testing.assert_array_equal(table[row, column, 4:], sinusoids(3, 4)[column])


def test_sinusoids_need_even_widths():
    with pytest.raises(ConfigError, match="width: got 5"):
        sinusoids(3, 5)
    with pytest.raises(ConfigError, match="width: got 6, expected a multiple of 4"):
        sinusoids_2d(3, 3, 6)


@pytest.mark.parametrize("size", [(6, 8), (9, 5), (2, 2), (3, 4)])
def test_resized_positions_equal_opencv(size):
    """OpenCV's cubic interpolation has the same coefficient, centres and borders as PyTorch's."""
    table = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    expected = cv2.resize(table, size[::-1], interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(resize_positions(jnp.asarray(table), *size), expected, rtol=1e-4, atol=1e-5)


def test_learned_positions_are_added_from_a_start():
    module = LearnedPositions(max_length=6)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 6, 4)))
    whole = module.apply(variables, jnp.zeros((1, 6, 4)))
    np.testing.assert_array_equal(whole[0], variables["params"]["table"])
    part = jax.jit(module.apply)(variables, jnp.zeros((1, 2, 4)), jnp.int32(3))
    np.testing.assert_array_equal(part[0], whole[0, 3:5])


def test_learned_positions_refuse_longer_sequences():
    with pytest.raises(ConfigError, match="max_length: is 4, got 5 tokens"):
        LearnedPositions(max_length=4).init(jax.random.key(0), jnp.zeros((1, 5, 4)))


def test_grid_positions_are_interpolated_for_another_grid():
    module = LearnedPositions2D()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 2, 3, 4)))
    table = variables["params"]["table"]
    assert table.shape == (2, 3, 4)
    np.testing.assert_array_equal(module.apply(variables, jnp.zeros((1, 2, 3, 4)))[0], table)
    larger = module.apply(variables, jnp.zeros((1, 4, 6, 4)))[0]
    np.testing.assert_array_equal(larger, resize_positions(table, 4, 6))
