"""The words of a search space: what they allow, what they refuse, and how they map the unit interval."""

import json

import pytest

from mmjax.errors import ConfigError
from mmjax.sweeps.space import check_space, choice, from_json, integers, log_uniform, to_json, uniform


@pytest.mark.parametrize(
    ("dimension", "ends", "middle"),
    [
        (uniform(-1.0, 3.0), (-1.0, 3.0), 1.0),
        (log_uniform(1e-4, 1e-2), (1e-4, 1e-2), 1e-3),
        (integers(1, 5), (1, 5), 3),
    ],
)
def test_the_unit_interval_is_mapped_onto_a_range(dimension, ends, middle):
    assert (dimension.from_unit(0.0), dimension.from_unit(1.0)) == pytest.approx(ends)
    assert dimension.from_unit(0.5) == pytest.approx(middle)
    assert dimension.to_unit(middle) == pytest.approx(0.5)


@pytest.mark.parametrize("dimension", [integers(2, 6), integers(1, 64, log=True)])
def test_integers_are_whole_and_each_comes_back(dimension):
    for value in dimension.values():
        found = dimension.from_unit(dimension.to_unit(value))
        assert found == value and isinstance(found, int)


def test_integers_are_equally_likely():
    counts = {value: 0 for value in range(3)}
    for i in range(300):
        counts[integers(0, 2).from_unit((i + 0.5) / 300)] += 1
    assert counts == {0: 100, 1: 100, 2: 100}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "search_space\\(\\): is empty"),
        ([1], "search_space\\(\\): gives a list, expected a mapping"),
        ({"seed": 3}, "search space: seed: got 3, expected uniform, log_uniform, integers or choice"),
        ({"seed": integers(3, 3)}, "search space: seed: got 3 to 3, expected a low end below"),
        ({"seed": integers(0, 1.5)}, "search space: seed: got the end 1.5, expected whole numbers"),
        ({"a": uniform(0.0, float("inf"))}, "search space: a: got the end inf, expected numbers"),
        ({"a": uniform("0", 1.0)}, "search space: a: got the end '0', expected numbers"),
        ({"a": log_uniform(0.0, 1.0)}, "search space: a: got 0 to 1 on a logarithmic scale, expected more"),
        ({"a": choice([])}, "search space: a: has no values to choose from"),
        ({"a": choice([1, 2, 1])}, "search space: a: a value is there twice"),
        ({"a": choice([float("nan")])}, "search space: a: got nan \\(float\\), expected text, a finite"),
    ],
)
def test_what_is_no_space_is_refused_in_one_line(space, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_space(space)
    assert "\n" not in str(caught.value)


def test_a_space_is_the_same_after_json():
    space = {
        "a": uniform(0.0, 1.0),
        "b": log_uniform(1e-3, 1.0),
        "c": integers(1, 9, log=True),
        "d": choice(["x", None, [1, 2], {"type": "film"}]),
    }
    assert from_json(json.loads(json.dumps(to_json(space)))) == space


def test_keys_come_in_one_order_whatever_order_they_had():
    space = {"b": uniform(0.0, 1.0), "a": integers(1, 3)}
    kept = json.dumps(to_json(space))
    stored = json.dumps(to_json(space), sort_keys=True)
    assert list(from_json(json.loads(kept))) == list(from_json(json.loads(stored))) == ["a", "b"]


def test_what_stands_for_a_range_of_fractions_are_fractions():
    edges = uniform(16, 64).edges()
    assert edges == [16.0, 40.0, 64.0] and all(isinstance(value, float) for value in edges)
    assert integers(1, 5).edges() == [1, 5]
