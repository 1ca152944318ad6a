"""Which record an example is: epochs, mixtures, randomness."""

import collections
import functools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmjax.data.order import Mixed, Shuffled, generator, training_order
from mmjax.data.source import ListSource, MixtureSource

few = settings(max_examples=25, deadline=None)


@few
@given(st.integers(1, 60), st.integers(0, 2**64), st.integers(0, 5))
@example(2**14 + 1, 0, 1)  # long enough to be shuffled without a table
def test_every_epoch_holds_every_record_once(length, seed, epoch):
    order = Shuffled(length, seed)
    assert sorted(order(epoch * length + i) for i in range(length)) == list(range(length))


def test_epochs_seeds_and_parts_have_orders_of_their_own():
    for length in (50, 2**14 + 1):

        def epoch(seed, number, path=(), length=length):
            order = Shuffled(length, seed, path)
            return tuple(order(length * number + i) for i in range(50))

        orders = [epoch(s, e) for s in range(4) for e in range(4)] + [epoch(0, 0, (0,)), epoch(0, 0, (1,))]
        assert len(set(orders)) == len(orders)


def test_a_record_is_as_likely_to_come_anywhere_in_an_epoch():
    length, epochs = 20, 2000
    order = Shuffled(length, seed=3)
    counts = np.zeros((length, length))
    for number in range(length * epochs):
        counts[number % length, order(number)] += 1
    expected = epochs / length
    # Chi-square with (length - 1)^2 degrees of freedom: 361 +- 27.
    assert abs(((counts - expected) ** 2 / expected).sum() - 361) < 4 * 27


weights = st.lists(st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0, 2.0, 3.0, 7.5]), min_size=1, max_size=5)


@few
@given(weights, st.integers(0, 500))
def test_mixtures_keep_their_proportions_at_every_moment(weights, length):
    mixed = Mixed([Shuffled(3, 0)] * len(weights), [0] * len(weights), weights)
    counts = np.zeros(len(weights))
    for number in range(length):
        part, number_in_part = mixed.part(number)
        assert number_in_part == counts[part]  # each part is drawn from in turn, nothing left out
        counts[part] += 1
        shares = (number + 1) * np.array(weights) / sum(weights)
        assert np.abs(counts - shares).max() < len(weights)


def test_decimal_weights_are_exact_over_their_period():
    mixed = Mixed([Shuffled(3, 0)] * 3, [0, 3, 6], [0.7, 0.2, 0.1])
    for period in (0, 1, 12345):
        parts = collections.Counter(mixed.part(10 * period + i)[0] for i in range(10))
        assert parts == {0: 7, 1: 2, 2: 1}


def test_each_part_of_a_mixture_goes_through_its_own_epochs():
    a, b = (ListSource([{"x": i} for i in range(n)], name=name) for n, name in ((4, "a"), (6, "b")))
    source = MixtureSource([a, b], [1.0, 3.0])
    order = training_order(source, seed=5)
    drawn = [order(number) for number in range(48)]
    from_a, from_b = [i for i in drawn if i < 4], [i - 4 for i in drawn if i >= 4]
    assert len(from_a) == 12 and len(from_b) == 36
    for epoch in range(3):
        assert sorted(from_a[4 * epoch : 4 * epoch + 4]) == list(range(4))
    for epoch in range(6):
        assert sorted(from_b[6 * epoch : 6 * epoch + 6]) == list(range(6))


def test_mixtures_of_mixtures():
    leaves = [ListSource([{"x": i} for i in range(5)], name=f"leaf{k}") for k in range(3)]
    source = MixtureSource([MixtureSource(leaves[:2], [1.0, 1.0]), leaves[2]], [1.0, 1.0])
    order = training_order(source, seed=0)
    counts = collections.Counter(order(number) // 5 for number in range(40))
    assert counts == {0: 10, 1: 10, 2: 20}
    last = sorted(index for index in map(order, range(40)) if index >= 10)
    assert last == sorted([*range(10, 15)] * 4)


def test_generators_differ_in_seed_example_and_use_and_in_nothing_else():
    draws = {
        (seed, number, use): tuple(generator(seed, number, use).integers(0, 2**63, 4))
        for seed in (0, 1, 2**40)
        for number in (0, 1, 2**40)
        for use in ("image", "text", "")
    }
    assert len(set(draws.values())) == len(draws) == 27
    assert tuple(generator(1, 1, "text").integers(0, 2**63, 4)) == draws[1, 1, "text"]


def test_generators_are_uniform_over_examples():
    first = np.array([generator(0, number, "image").random() for number in range(2000)])
    assert abs(first.mean() - 0.5) < 0.03 and abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.08


@pytest.mark.slow
def test_order_and_generators_are_the_same_in_another_process():
    code = (
        "from mmjax.data.order import Shuffled, generator\n"
        "order = Shuffled(30, 7)\n"
        "print([order(i) for i in range(60)], generator(7, 3, 'image').integers(0, 1000, 5).tolist())"
    )
    run = functools.partial(subprocess.run, [sys.executable, "-c", code], capture_output=True, check=True)
    outputs = {run(text=True, env={"PYTHONHASHSEED": seed}).stdout for seed in ("1", "2")}
    order = Shuffled(30, 7)
    here = [order(i) for i in range(60)], generator(7, 3, "image").integers(0, 1000, 5).tolist()
    assert outputs == {f"{here[0]} {here[1]}\n"}
