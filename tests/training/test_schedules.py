import functools

import numpy as np
import pytest

from mmjax import components
from mmjax.errors import ConfigError
from mmjax.training.schedules import SCHEDULES, to_steps

convert = functools.partial(to_steps, batch_size=10, train_examples=95, total_steps=40)


@pytest.mark.parametrize(
    "section, steps",
    [
        ({}, None),
        ({"every_steps": None, "every_epochs": None}, None),
        ({"every_steps": 7}, 7),
        ({"every_epochs": 1.0}, 10),  # the last batch of an epoch reaches into the next one
        ({"every_epochs": 0.001}, 1),
        ({"every_examples": 20}, 2),
        ({"every_examples": 21}, 3),
        ({"every_percent": 50.0}, 20),
        ({"every_percent": 0.0}, 0),
        ({"every_percent": 7.5}, 3),
        ({"every_percent": 30.000000000000004}, 12),  # rounding noise is no step
        ({"warmup_steps": 3, "every_steps": 5}, 5),
    ],
)
def test_durations(section, steps):
    assert convert(section, "every") == steps


def test_durations_that_cannot_be():
    with pytest.raises(ConfigError, match="every_steps and every_epochs are both set"):
        convert({"every_steps": 1, "every_epochs": 1.0}, "every")
    with pytest.raises(ConfigError, match="every_examples: got -1, expected 0 or more"):
        convert({"every_examples": -1}, "every")
    with pytest.raises(ConfigError, match="every_percent: got 101.0, expected 0 to 100"):
        convert({"every_percent": 101.0}, "every")
    with pytest.raises(ConfigError, match="total_percent: the run has no length"):
        to_steps({"total_percent": 5.0}, "total", batch_size=10, train_examples=95)


def rates(name, **fields):
    spec = components.normalise({"type": name, "peak": 2.0, **fields}, components.component("schedules"), "s")
    schedule = components.build("schedules", spec).make(40, convert)
    return np.array([schedule(step) for step in range(41)])


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_warmup_is_linear_to_the_peak(name):
    found = rates(name, warmup_percent=25.0)
    np.testing.assert_allclose(found[:11], np.linspace(0.0, 2.0, 11), rtol=1e-6)
    assert rates(name)[0] == pytest.approx(2.0)  # without one it starts there
    with pytest.raises(ConfigError, match="warm-up takes 40 of 40 steps"):
        rates(name, warmup_steps=40)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_run_of_no_steps_asks_for_no_rate(name):
    spec = {"type": name, "peak": 2.0, "warmup_steps": 5}
    spec = components.normalise(spec, components.component("schedules"), "s")
    assert components.build("schedules", spec).make(0, convert)(0) == 2.0


def test_constant():
    np.testing.assert_allclose(rates("constant"), 2.0)


def test_cosine():
    found = rates("cosine", warmup_steps=20, final=0.1)
    np.testing.assert_allclose(found[30], 2.0 * (0.1 + 0.9 * 0.5), rtol=1e-6)
    np.testing.assert_allclose(found[40], 0.2, rtol=1e-6)


def test_linear():
    found = rates("linear", warmup_steps=20, final=0.5)
    np.testing.assert_allclose(found[20:], np.linspace(2.0, 1.0, 21), rtol=1e-6)


def test_reciprocal_square_root():
    found = rates("rsqrt", warmup_steps=10, timescale=5, cooldown_steps=10, final=0.2)
    np.testing.assert_allclose(found[10:31], 2.0 / np.sqrt(1.0 + np.arange(21) / 5), rtol=1e-5)
    np.testing.assert_allclose(found[30:], found[30] * np.linspace(1.0, 0.2, 11), rtol=1e-5)
    without = rates("rsqrt", warmup_steps=10, timescale=5)
    np.testing.assert_allclose(without[40], 2.0 / np.sqrt(1.0 + 30 / 5), rtol=1e-5)
    with pytest.raises(ConfigError, match=r"warm-up \(10\) and cool-down \(31\) take more than the 40 steps"):
        rates("rsqrt", warmup_steps=10, cooldown_steps=31)
