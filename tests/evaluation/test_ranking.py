import itertools

import numpy as np
import pytest

from mmjax.evaluation import ranking


def test_rank_of_the_best_right_item():
    scores = np.array([[0.9, 0.5, 0.7, 0.1], [0.9, 0.5, 0.7, 0.1], [0.9, 0.5, 0.7, 0.1]])
    positive = np.array([[0, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]], bool)
    np.testing.assert_array_equal(ranking.ranks(scores, positive), [3, 2, 1])


def test_a_tie_with_a_wrong_item_is_lost_and_with_a_right_one_is_not():
    scores = np.array([[0.5, 0.5, 0.5, 0.1], [0.5, 0.5, 0.5, 0.1], [0.2, 0.2, 0.2, 0.2]])
    positive = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(ranking.ranks(scores, positive), [3, 2, 4])


def test_what_has_no_rank_is_refused():
    with pytest.raises(ValueError, match="no right item"):
        ranking.ranks(np.zeros((1, 2)), np.zeros((1, 2), bool))
    with pytest.raises(ValueError, match="NaN"):
        ranking.ranks(np.array([[np.nan, 0.0]]), np.array([[True, False]]))


def test_any_shared_id_is_enough_and_unknown_ids_are_not():
    pixels, concepts = np.array([7, 8, -1]), np.array([1, 2, -1])
    item_pixels, item_concepts = np.array([7, -1, 9]), np.array([5, 2, -1])
    np.testing.assert_array_equal(
        ranking.shares_an_id([pixels, concepts], [item_pixels, item_concepts]),
        [[True, False, False], [False, True, False], [False, False, False]],
    )


def test_rank_scores():
    scores = ranking.rank_scores(np.array([1, 2, 6, 11]))
    assert scores == {
        "R@1": 0.25,
        "R@5": 0.5,
        "R@10": 0.75,
        "median_rank": 4.0,
        "mean_reciprocal_rank": pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 11) / 4),
    }
    assert all(np.isnan(v) for v in ranking.rank_scores(np.zeros(0, int)).values())


@pytest.mark.parametrize("right", [1, 2, 5])
def test_chance_equals_the_count_over_all_orders(right):
    items = 6
    first = [min(order[:right]) for order in itertools.permutations(range(items))]
    expected = {f"R@{k}": np.mean(np.array(first) < k) for k in ranking.CUTOFFS}
    found = ranking.chance_scores(np.array([right]), items)
    assert found == pytest.approx(expected)


def test_chance_of_a_single_right_item():
    assert ranking.chance_scores(np.ones(7, int), 1903) == pytest.approx(
        {"R@1": 1 / 1903, "R@5": 5 / 1903, "R@10": 10 / 1903}
    )


def test_chunks_cover_all_queries(monkeypatch):
    monkeypatch.setattr(ranking, "_CHUNK", 3)
    queries, items = np.random.default_rng(0).normal(size=(2, 7, 4))
    blocks = list(ranking.score_chunks(queries, items))
    assert [block for block, _ in blocks] == [slice(0, 3), slice(3, 6), slice(6, 7)]
    np.testing.assert_allclose(np.concatenate([s for _, s in blocks]), queries @ items.T)
