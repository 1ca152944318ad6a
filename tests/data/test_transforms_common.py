"""Transforms for any modality."""

import numpy as np
import pytest
from transform_cases import make, run

from mmjax.errors import ConfigError, DataError


def test_choose_takes_every_present_value_equally_often():
    drawn = [run("choose", ["a", None, "b", ["c", None]], seed=seed) for seed in range(600)]
    assert set(drawn) == {"a", "b", "c"}
    assert all(150 < drawn.count(value) < 250 for value in "abc")


def test_first_takes_the_first_present_value():
    assert run("first", [None, "b", "c"]) == "b"
    assert run("first", [[None, "x"], "b"]) == "x"


@pytest.mark.parametrize("name", ["choose", "first"])
def test_choosing_needs_a_list_with_something_in_it(name):
    with pytest.raises(DataError, match=rf"{name}: got text \('abc'\), expected a list"):
        run(name, "abc")
    with pytest.raises(DataError, match=f"{name}: got a list of 2, expected a list with at least one value"):
        run(name, [None, []])


def test_pad_ids():
    made = run("pad", np.array([5, 6, 7], np.int32), length=5, value=1)
    np.testing.assert_array_equal(made["value"], [5, 6, 7, 1, 1])
    np.testing.assert_array_equal(made["mask"], [True, True, True, False, False])
    assert made["value"].dtype == np.int32 and made["mask"].dtype == bool


def test_pad_frames():
    made = run("pad", np.ones((2, 3), np.float32), length=4)
    np.testing.assert_array_equal(made["value"], [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(made["mask"], [True, True, False, False])


def test_pad_cuts_nothing():
    with pytest.raises(DataError, match=r"pad: got an array \[5\] int64, expected at most 4 .*max_length"):
        run("pad", np.arange(5), length=4)
    assert run("pad", np.arange(4), length=4)["mask"].all()


def test_normalise_scales_bytes_to_one_and_leaves_floats():
    image = np.array([[[0, 51, 255]]], np.uint8)
    made = run("normalise", image, mean=[0.5, 0.2, 0.0], std=[0.5, 0.1, 2.0])
    np.testing.assert_allclose(made, [[[-1.0, 0.0, 0.5]]], atol=1e-6)
    assert made.dtype == np.float32
    frames = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(run("normalise", frames, mean=[1.0], std=[2.0]), [[0, 0.5], [1, 1.5]])
    with pytest.raises(DataError, match=r"normalise: got an array \[1, 1, 3\] uint8, .* \[..., 2\]"):
        run("normalise", image, mean=[0.0, 0.0], std=[1.0, 1.0])


def test_gaussian_noise_has_the_asked_deviation():
    noise = run("gaussian_noise", np.zeros((200, 200), np.float32), std=0.3)
    assert abs(noise.std() - 0.3) < 0.005 and abs(noise.mean()) < 0.005 and noise.dtype == np.float32
    image = np.full((200, 200, 1), 128, np.uint8)
    noisy = run("gaussian_noise", image, std=0.1).astype(float)
    assert abs(noisy.std() - 25.5) < 0.5 and abs(noisy.mean() - 128) < 0.5
    np.testing.assert_array_equal(run("gaussian_noise", image, std=0.0), image)
    bright = run("gaussian_noise", np.full((50, 50, 1), 250, np.uint8), std=0.5)
    assert bright.max() == 255 and bright.min() == 0  # clipped, not wrapped around


def test_drop_frames_zeroes_the_fraction():
    frames = np.ones((4000, 2), np.float32)
    made = run("drop_frames", frames, fraction=0.25)
    lost = ~made.any(axis=1)
    assert abs(lost.mean() - 0.25) < 0.03
    np.testing.assert_array_equal(made[~lost], 1)
    np.testing.assert_array_equal(run("drop_frames", frames, fraction=0.0), frames)
    assert not run("drop_frames", np.ones((5, 2, 2, 3), np.uint8), fraction=1.0).any()


def test_crops_of_frames():
    frames = np.arange(10)[:, None]
    np.testing.assert_array_equal(run("center_crop_frames", frames, length=4)[:, 0], [3, 4, 5, 6])
    np.testing.assert_array_equal(run("center_crop_frames", frames, length=12), frames)
    np.testing.assert_array_equal(run("truncate", frames, length=4)[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(run("truncate", frames, length=12), frames)
    starts = set()
    for seed in range(200):
        made = run("random_crop_frames", frames, seed=seed, length=4)[:, 0]
        np.testing.assert_array_equal(made, made[0] + np.arange(4))
        starts.add(int(made[0]))
    assert starts == set(range(7))
    np.testing.assert_array_equal(run("random_crop_frames", frames, length=12), frames)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("pad", {"length": 0}),
        ("gaussian_noise", {"std": -1.0}),
        ("drop_frames", {"fraction": 2.0}),
        ("random_crop_frames", {"length": 0}),
        ("center_crop_frames", {"length": -1}),
        ("truncate", {"length": 0}),
    ],
)
def test_settings_that_cannot_work_are_refused(name, fields):
    (field,) = fields
    with pytest.raises(ConfigError, match=rf"{name}.{field}: got"):
        make(name, **fields)
