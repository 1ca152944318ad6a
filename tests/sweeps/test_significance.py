"""Paired tests between settings, beside scipy's and beside numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from mmjax.sweeps.significance import CORRECTED, PAIRED, compare, holm


def test_over_seeds_it_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    one, other = rng.normal(1.0, 0.3, 6), rng.normal(0.8, 0.3, 6)
    found = compare(
        {(seed, None): float(v) for seed, v in enumerate(one)},
        {(seed, None): float(v) for seed, v in enumerate(other)},
        None,
    )
    expected = stats.ttest_rel(one, other)
    assert found.test == PAIRED and found.pairs == 6
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.difference == pytest.approx(np.mean(one - other))


def test_over_folds_the_variance_is_corrected():
    differences = [0.03, 0.01, 0.02, 0.05, -0.01]
    one = {(None, fold): 0.8 + d for fold, d in enumerate(differences)}
    other = {(None, fold): 0.8 for fold in range(5)}
    found = compare(one, other, 5)
    # Mean 0.02, variance of the sample 0.0005, (1/5 + 1/4) * 0.0005 = 0.000225.
    t = 0.02 / math.sqrt(0.000225)
    assert found.test == CORRECTED and found.pairs == 5
    assert found.p == pytest.approx(2 * stats.t.sf(t, 4), rel=1e-9)
    plain = stats.ttest_1samp(differences, 0.0).pvalue
    assert found.p > plain


def test_seeds_within_a_fold_are_averaged_first():
    one = {(seed, fold): fold / 10 + seed / 100 for seed in range(3) for fold in range(4)}
    other = {(seed, fold): 0.0 for seed in range(3) for fold in range(4)}
    found = compare(one, other, 4)
    averaged = compare(
        {(None, fold): fold / 10 + 0.01 for fold in range(4)}, {(None, fold): 0.0 for fold in range(4)}, 4
    )
    assert found.pairs == 4
    assert found.p == pytest.approx(averaged.p, rel=1e-9)


def test_only_common_repeats_are_compared():
    found = compare({(0, None): 1.0, (1, None): 2.0, (2, None): 9.0}, {(0, None): 0.5, (1, None): 1.0}, None)
    assert found.pairs == 2 and found.difference == pytest.approx(0.75)
    assert compare({(0, None): 1.0}, {(1, None): 1.0}, None) is None


@pytest.mark.parametrize("other", [{(0, None): 0.5}, {(0, None): 0.5, (1, None): 1.5}])
def test_without_a_variance_there_is_no_p(other):
    assert compare({(0, None): 1.0, (1, None): 2.0}, other, None).p is None


def test_false_alarms_are_as_rare_as_claimed():
    """Of two equal settings, the paired test calls about 5% different at 5%."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        one, other = rng.normal(size=(2, 5))
        found = compare(
            {(i, None): float(v) for i, v in enumerate(one)},
            {(i, None): float(v) for i, v in enumerate(other)},
            None,
        )
        alarms += found.p < 0.05
    assert 0.035 < alarms / 2000 < 0.065  # 3 standard deviations of a binomial share


def test_holm():
    # The textbook's steps: 0.01 * 4, then the highest so far of 0.02 * 3, 0.03 * 2, 0.04 * 1.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([None, 0.5, 0.9]) == [None, 1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("scale", [1.0, 1e-12])
@pytest.mark.parametrize("folds", [None, 2])
def test_differences_that_are_equal_but_for_rounding_give_no_p(scale, folds):
    one, other = {(None, 0): 0.9, (None, 1): 0.8}, {(None, 0): 0.8, (None, 1): 0.7}
    one, other = ({key: value * scale for key, value in values.items()} for values in (one, other))
    assert compare(one, other, folds).p is None
    one[None, 1] = 0.85 * scale
    assert 0.0 < compare(one, other, folds).p < 1.0


def test_a_value_that_is_infinite_gives_no_p():
    one, other = {(0, None): math.inf, (1, None): 2.0}, {(0, None): 1.0, (1, None): 1.5}
    assert compare(one, other, None).p is None
