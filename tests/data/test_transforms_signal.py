"""Transforms of signals."""

import numpy as np
import pytest

from mmjax import components
from mmjax.errors import ConfigError, DataError


def make(name, **settings):
    return components.build("transforms", {"type": name, **settings})


def signals(shape=(40, 2)):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(40,), (40, 2)])
def test_detrend_takes_off_any_line(shape):
    signal, rng = signals(shape), np.random.default_rng(0)
    time = np.arange(40, dtype=np.float32).reshape(-1, *[1] * (len(shape) - 1))
    flat = make("detrend")(signal, rng)
    assert flat.shape == shape and flat.dtype == np.float32
    np.testing.assert_allclose(make("detrend")(signal + 3.0 - 0.2 * time, rng), flat, atol=1e-5)
    np.testing.assert_allclose(np.polyfit(np.arange(40), flat, 1), 0, atol=1e-6)


def test_random_roll_is_one_of_all_places_and_the_same_for_all_channels():
    signal = np.stack([np.arange(10.0)] * 2, axis=1)
    roll, rng = make("random_roll"), np.random.default_rng(0)
    starts = set()
    for _ in range(200):
        rolled = roll(signal, rng)
        starts.add(int(rolled[0, 0]))
        np.testing.assert_array_equal(rolled[:, 0], rolled[:, 1])
        np.testing.assert_array_equal(np.diff(rolled[:, 0]) % 10, 1)
    assert starts == set(range(10))
    np.testing.assert_array_equal(make("random_roll", longest=0)(signal, rng), signal)


def test_random_trend_adds_a_line_with_the_deviations_given():
    signal, rng = signals((40, 1)), np.random.default_rng(0)
    trend = make("random_trend", offset=0.3, slope=0.04)
    lines = np.stack([trend(signal, rng) - signal for _ in range(2000)])[..., 0]
    np.testing.assert_allclose(np.diff(lines, n=2, axis=1), 0, atol=1e-5)
    slopes, offsets = lines[:, 1] - lines[:, 0], lines.mean(axis=1)
    np.testing.assert_allclose([slopes.std(), offsets.std()], [0.04, 0.3], rtol=0.05)
    np.testing.assert_allclose([slopes.mean(), offsets.mean()], 0, atol=0.02)
    np.testing.assert_array_equal(
        trend(signal, np.random.default_rng(7)), trend(signal, np.random.default_rng(7))
    )


def test_wrong_settings_and_values():
    with pytest.raises(ConfigError, match="random_roll.longest: got -1, expected 0 or more, or none"):
        make("random_roll", longest=-1)
    with pytest.raises(ConfigError, match="random_trend.slope: got -0.1, expected 0 or more"):
        make("random_trend", offset=1.0, slope=-0.1)
    for name in ("detrend", "random_roll"):
        with pytest.raises(DataError, match=f"{name}: got text .*expected a signal"):
            make(name)("no signal", np.random.default_rng(0))
        with pytest.raises(DataError, match="of 2 samples or more"):
            make(name)(np.zeros((1, 3)), np.random.default_rng(0))
