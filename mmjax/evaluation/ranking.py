"""Ranks in retrieval, where a query may have several right items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray

_CHUNK = 1024  # queries whose similarities are in memory at once
CUTOFFS = (1, 5, 10)


def shares_an_id(
    queries: Sequence[Int[Array, " n"]], items: Sequence[Int[Array, " m"]]
) -> Bool[Array, "n m"]:
    """Which queries and items belong together: any one of their ids is the same.

    Args:
      queries, items: the same kinds of ids for both; a negative id is unknown and equals no other.
    """
    positive = np.zeros((len(queries[0]), len(items[0])), bool)
    for query_ids, item_ids in zip(queries, items, strict=True):
        positive |= (query_ids[:, None] == item_ids[None, :]) & (query_ids >= 0)[:, None]
    return positive


def ranks(scores: Float[Array, "n m"], positive: Bool[Array, "n m"]) -> Int[Array, " n"]:
    """The rank of each query's best right item, 1 being the top.

    rank = 1 + the number of wrong items whose score is at least that of the best right item. So a
    wrong item that ties with a right one stands before it: constant scores earn nothing. Right
    items do not push each other back.

    Raises:
      ValueError: when a query has no right item, or a score is NaN (nothing compares with it).
    """
    if not positive.any(axis=1).all():
        raise ValueError("a query has no right item, so it has no rank; leave it out")
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN, so they have no order")
    best = np.where(positive, scores, -np.inf).max(axis=1)
    return 1 + ((scores >= best[:, None]) & ~positive).sum(axis=1)


def score_chunks(
    queries: Float[Array, "n D"], items: Float[Array, "m D"]
) -> Iterator[tuple[slice, Float[Array, "chunk m"]]]:
    """The dot products of a block of queries with all items, block after block."""
    for start in range(0, len(queries), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(queries)))
        yield rows, queries[rows] @ items.T


def rank_scores(found: Int[Array, " n"]) -> dict[str, float]:
    """`R@1`, `R@5`, `R@10` (share of queries with rank <= k), `median_rank`, `mean_reciprocal_rank`.

    All are NaN without queries.
    """
    if not len(found):
        return dict.fromkeys([*(f"R@{k}" for k in CUTOFFS), "median_rank", "mean_reciprocal_rank"], np.nan)
    scores = {f"R@{k}": float((found <= k).mean()) for k in CUTOFFS}
    return scores | {
        "median_rank": float(np.median(found)),
        "mean_reciprocal_rank": float((1.0 / found).mean()),
    }


def chance_scores(right: Int[Array, " n"], items: int) -> dict[str, float]:
    """`R@k` expected when all items are put in a random order.

    R@k = mean_i (1 - C(items - right_i, k) / C(items, k)): one minus the chance that none of the
    right ones is among the first k.

    Args:
      right: how many right items each query has.
      items: how many items there are.
    """
    scores = {}
    for k in CUTOFFS:
        place = np.arange(min(k, items))  # the item at each place is wrong, given that those before are
        wrong = np.maximum(items - right[:, None] - place, 0) / (items - place)
        scores[f"R@{k}"] = float((1.0 - wrong.prod(axis=1)).mean()) if len(right) else np.nan
    return scores
