import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.layers.position import (
    LearnedPositions,
    LearnedPositions2D,
    LearnedPositionsOverTime,
    RelativeBias,
    resize_positions,
    rotate,
    sinusoids,
    sinusoids_2d,
)


def test_sinusoids_by_hand():
    # Width 4: wavelengths 2 pi and 200 pi; sines first.
    table = sinusoids(3, 4)
    expected = [[np.sin(t), np.sin(t / 100), np.cos(t), np.cos(t / 100)] for t in range(3)]
    np.testing.assert_allclose(table, expected, rtol=1e-6, atol=1e-7)


def test_interleaved_sinusoids_have_each_sine_before_its_cosine():
    table = sinusoids(3, 4, interleaved=True)
    expected = [[np.sin(t), np.cos(t), np.sin(t / 100), np.cos(t / 100)] for t in range(3)]
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


def test_rotation_by_hand_and_by_distance():
    """Width 2: position t turns a vector by t radians; only the distance matters to a dot product."""
    heads = jnp.broadcast_to(jnp.array([1.0, 0.0]), (1, 4, 1, 2))
    turned = rotate(heads)
    np.testing.assert_allclose(
        turned[0, :, 0], np.stack([np.cos(range(4)), np.sin(range(4))], axis=1), atol=1e-6
    )
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
    dots = [
        float(jnp.sum(rotate(query, jnp.array([[5 + shift]])) * rotate(key, jnp.array([[2 + shift]]))))
        for shift in (0, 40)
    ]
    np.testing.assert_allclose(dots[0], dots[1], rtol=1e-4)
    with pytest.raises(ConfigError, match="head_width: got 3, expected an even number"):
        rotate(jnp.zeros((1, 2, 1, 3)))


def test_relative_buckets():
    """Exact up to a quarter of the buckets, wider and wider beyond; keys that come later apart."""
    bias = RelativeBias(heads=1, buckets=8, max_distance=16)
    table = jnp.arange(8.0)[:, None]
    got = bias.apply({"params": {"table": table}}, 1, 40)[0, 0, 0]
    assert got[:2].tolist() == [0, 5] and got[-1] == 7 and bool((jnp.diff(got[1:]) >= 0).all())
    back = bias.apply({"params": {"table": table}}, 40, 1)[0, 0, :, 0]
    assert back[:3].tolist() == [0, 1, 2] and back[-1] == 3


def test_positions_over_time_for_other_lengths():
    module = LearnedPositionsOverTime(moments=3)
    zeros = jnp.zeros((2, 3, 2, 4))
    variables = module.init(jax.random.key(0), zeros)
    table = variables["params"]["table"]
    assert table.shape == (3, 2, 4)
    np.testing.assert_array_equal(module.apply(variables, zeros)[1], table)
    np.testing.assert_array_equal(module.apply(variables, zeros[:, :2])[1], table[:2])
    longer = module.apply(variables, jnp.zeros((1, 6, 2, 4)))[0]
    np.testing.assert_allclose(longer[0], table[0], rtol=1e-6)
    np.testing.assert_allclose(longer[1], 0.75 * table[0] + 0.25 * table[1], rtol=1e-5, atol=1e-7)


def test_positions_over_time_for_other_places():
    """A line of places is interpolated like time, a grid as `resize_positions` does."""
    line = LearnedPositionsOverTime(moments=2)
    variables = line.init(jax.random.key(0), jnp.zeros((1, 2, 2, 4)))
    table = variables["params"]["table"]
    wider = line.apply(variables, jnp.zeros((1, 2, 4, 4)))[0]
    np.testing.assert_allclose(wider[:, 1], 0.75 * table[:, 0] + 0.25 * table[:, 1], rtol=1e-5, atol=1e-7)

    grid = LearnedPositionsOverTime(moments=2)
    variables = grid.init(jax.random.key(0), jnp.zeros((1, 2, 3, 3, 4)))
    larger = grid.apply(variables, jnp.zeros((1, 2, 5, 4, 4)))[0]
    for moment in range(2):
        expected = resize_positions(variables["params"]["table"][moment], 5, 4)
        np.testing.assert_allclose(larger[moment], expected, rtol=1e-5, atol=1e-6)
