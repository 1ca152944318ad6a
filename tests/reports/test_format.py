from __future__ import annotations

import math

import pytest

from mmjax.reports.format import cut, duration, number, plain, short


@pytest.mark.parametrize(
    "value, text",
    [
        (0.8231, "0.823"),
        (12.345, "12.35"),
        (7, "7"),
        (1234567, "1\u2009234\u2009567"),
        (4000.0, "4\u2009000"),
        (119.0, "119"),
        (1.0, "1.000"),
        (0.0, "0"),
        (0.000123, "1.23e-4"),
        (1.5e8, "150\u2009000\u2009000"),
        (1.5e8 + 0.5, "1.5e8"),
        (-0.25, "-0.250"),
        (math.nan, "nan"),
        (-math.inf, "−∞"),
        (True, "True"),
        ("x", "x"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    "value, text", [(0, "0"), (1500, "1.5k"), (2e7, "20M"), (0.05, "0.05"), (3e-4, "3e-4"), (-2000, "-2k")]
)
def test_short(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    "seconds, text", [(3.21, "3.2 s"), (59.99, "60.0 s"), (185, "3 min 05 s"), (3661, "1 h 01 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_plain_counts_equal_items():
    assert plain({"jax": "0.10", "on": ["cpu", "cpu", "gpu"]}) == "jax 0.10, on 2 × cpu, gpu"


def test_cut():
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abc defg", 5) == "abc…"
