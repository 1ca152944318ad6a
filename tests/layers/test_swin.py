import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.layers.swin import PatchMerging, SwinBlock, from_windows, relative_positions, to_windows


def changed_places(block, grid, place, **kwargs):
    """Which places differ when one does."""
    variables = jax.jit(block.init)(jax.random.key(0), grid)
    apply = jax.jit(block.apply)
    before = apply(variables, grid, **kwargs)
    after = apply(variables, grid.at[0, place[0], place[1], 0].add(3.0), **kwargs)
    return np.abs(before - after).max(axis=(0, 3)) > 1e-6


def test_windows_and_back():
    grid = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    windows = to_windows(grid, 2)
    assert windows.shape == (2 * 6, 4, 3)
    np.testing.assert_array_equal(windows[1].reshape(2, 2, 3), grid[0, :2, 2:4])
    np.testing.assert_array_equal(from_windows(windows, 4, 6), grid)


def test_relative_positions():
    index = relative_positions(3)
    assert index.shape == (9, 9) and index.min() == 0 and index.max() == 24
    assert (np.diag(index) == 12).all()  # the middle of 5 x 5
    # One row down is the same step wherever it starts.
    assert index[3, 0] == index[4, 1] == index[8, 5] == 12 + 5
    assert len(np.unique(index)) == 25


@pytest.mark.parametrize(
    ("place", "rows", "columns"),
    [((1, 1), (0, 2), (0, 2)), ((4, 3), (2, 6), (2, 6)), ((7, 4), (6, 8), (2, 6))],
)
def test_shifted_windows(place, rows, columns):
    """Windows of 4 on a grid of 8, shifted by 2: cut off at the edges, not around them."""
    grid = jax.random.normal(jax.random.key(1), (1, 8, 8, 6))
    expected = np.zeros((8, 8), bool)
    expected[slice(*rows), slice(*columns)] = True
    np.testing.assert_array_equal(changed_places(SwinBlock(2, 4, shifted=True), grid, place), expected)


def test_one_window_is_not_shifted():
    grid = jax.random.normal(jax.random.key(1), (1, 4, 4, 6))
    assert changed_places(SwinBlock(2, 4, shifted=True), grid, (0, 3)).all()


def test_places_that_are_not_real_are_not_seen():
    grid = jax.random.normal(jax.random.key(1), (1, 8, 8, 6))
    mask = jnp.ones((1, 8, 8), bool).at[0, 4, 3].set(False)
    changed = changed_places(SwinBlock(2, 4, shifted=True), grid, (4, 3), mask=mask)
    np.testing.assert_array_equal(np.argwhere(changed), [[4, 3]])


def test_position_bias_is_learned_and_matters():
    grid = jax.random.normal(jax.random.key(1), (2, 4, 4, 6))
    block = SwinBlock(2, 4)
    variables = jax.jit(block.init)(jax.random.key(0), grid)
    gradient = jax.jit(jax.grad(lambda v: jnp.sin(block.apply(v, grid)).sum()))(variables)
    assert (np.abs(gradient["params"]["position_bias"]) > 0).all()
    assert gradient["params"]["position_bias"].shape == (49, 2)


def test_patch_merging_halves_the_grid():
    grid = jax.random.normal(jax.random.key(1), (1, 4, 6, 5))
    merge = PatchMerging()
    variables = jax.jit(merge.init)(jax.random.key(0), grid)
    apply = jax.jit(merge.apply)
    before, after = apply(variables, grid), apply(variables, grid.at[0, 3, 2].add(1.0))
    assert before.shape == (1, 2, 3, 10)
    np.testing.assert_array_equal(np.argwhere((before != after).any(axis=(0, 3))), [[1, 1]])


def test_grids_that_do_not_divide():
    with pytest.raises(ConfigError, match="window: got 4, expected a divisor of the grid of 8 x 6"):
        jax.eval_shape(SwinBlock(2, 4).init, jax.random.key(0), jnp.zeros((1, 8, 6, 4)))
    with pytest.raises(ConfigError, match="got a grid of 4 x 3, expected even sides"):
        jax.eval_shape(PatchMerging().init, jax.random.key(0), jnp.zeros((1, 4, 3, 4)))
