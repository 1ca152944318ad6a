"""Finding the partner in the other stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.errors import ConfigError
from mmjax.evaluation import ranking
from mmjax.evaluation.context import EvalContext
from mmjax.evaluation.evaluator import Evaluator, present

_SHOWN = 5  # results of a query in the gallery
_EXACT = 2**24


@dataclasses.dataclass(frozen=True)
class Side:
    """The items of one stream; they ask for those of another, or answer.

    Attributes:
      rows: positions in the collected examples, `[n]`.
      ids: kinds of ids, each `[n]`; a query and an item with any of them in common belong together.
    """

    rows: np.ndarray
    ids: list[np.ndarray]

    def belongs(self, chosen: np.ndarray | slice, other: Side, others: np.ndarray | slice) -> np.ndarray:
        """bool `[chosen, others]`: which of the chosen items belong together with which others."""
        return ranking.shares_an_id([ids[chosen] for ids in self.ids], [ids[others] for ids in other.ids])


def side(examples: Mapping[str, np.ndarray], item: str, labels: Sequence[str]) -> Side:
    """The items of one stream.

    Args:
      examples: of a whole data set.
      item: label that numbers the stream's items: of rows that share it, the first stands for all
        (a negative one is shared with none). Empty: each row is an item.
      labels: ids by which things belong together, besides being of one row.

    Raises:
      ConfigError: ids are fractions, or too large for float32 to tell them apart.
    """
    ids = {label: _ids(label, examples[label]) for label in {*labels, *([item] if item else [])}}
    rows = np.arange(len(examples["example_id"]))
    if item:
        numbers = np.where(ids[item] < 0, -1 - rows, ids[item])
        rows = np.sort(np.unique(numbers, return_index=True)[1])
    return Side(rows, [rows, *(ids[label][rows] for label in labels)])


def _ids(label: str, values: np.ndarray) -> np.ndarray:
    """Whole numbers; -1 where a number is missing."""
    if not np.issubdtype(values.dtype, np.floating):
        return values.astype(np.int64)
    known = values[~np.isnan(values)]
    if np.any((known != np.floor(known)) | (np.abs(known) >= _EXACT)):
        raise ConfigError(
            f"retrieval: '{label}' holds numbers up to {known.max():,.10g}, expected whole ones below "
            f"{_EXACT:,}, which a float32 tells apart; number the items from 0"
        )
    return np.nan_to_num(values, nan=-1).astype(np.int64)


def id_labels(positives: Sequence[str], *items: str) -> list[str]:
    """The labels that make pairs: the given ones, and those that number items."""
    return list(dict.fromkeys([*positives, *(item for item in items if item)]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval(Evaluator):
    """`retrieval/<a>_to_<b>/...` and `retrieval/<b>_to_<a>/...`, as `ranking.rank_scores` gives them.

    Each item of one stream asks for the items of the other, ordered by dot product; `ranking.ranks`
    says what its rank is with several right items and with ties. A pair is right if it is of one
    row, or any of `positives` is the same.

    Where one image has several captions, each in a row of its own, name the label that numbers the
    images as `a_item` (or `b_item`): every image then asks once, and stands once among the answers,
    as in the protocol for COCO and Flickr30k.

    Artifact: `retrieval_gallery` for each direction, with the best answers to some queries, evenly
    spaced over the data and so the same in every round.

    Attributes:
      a, b: outputs `[B, D]`, embeddings of length one.
      a_name, b_name: what they are, in the metrics' names, such as 'image' and 'text'.
      streams: only examples that have all of these count.
      positives: integer batch labels; -1 equals no other.
      a_item, b_item: integer batch labels that number the items of a stream; empty: each row is one.
      a_text, b_text: record feature that shows an item in the gallery; empty shows its image.
      gallery_queries: queries in the gallery; 0 saves none.
    """

    a: str
    b: str
    a_name: str
    b_name: str
    streams: list[str]
    positives: list[str] = dataclasses.field(default_factory=list)
    a_item: str = ""
    b_item: str = ""
    a_text: str = ""
    b_text: str = ""
    gallery_queries: int = 12

    def needs(self) -> dict[str, set[str]]:
        return {self.data: {self.a, self.b, *self._labels(), *present(*self.streams)}}

    def groups(self) -> tuple[str, ...]:
        return (f"retrieval/{self.a_name}_to_{self.b_name}", f"retrieval/{self.b_name}_to_{self.a_name}")

    def evaluate(self, context: EvalContext) -> Iterator[tuple[str, float]]:
        examples = context.collect(self.data, self.streams)
        for output in (self.a, self.b):
            if examples[output].ndim != 2:
                raise ConfigError(
                    f"retrieval: the output '{output}' has shape {examples[output].shape}, "
                    "expected one vector per example; name a 'projection' head"
                )
        labels = self._labels()
        a = _Vectors(side(examples, self.a_item, labels), examples[self.a], self.a_text)
        b = _Vectors(side(examples, self.b_item, labels), examples[self.b], self.b_text)
        for group, queries, items in zip(self.groups(), (a, b), (b, a), strict=True):
            ranks = _ranks(queries, items)
            if self.gallery_queries and len(ranks):
                chosen = np.unique(np.linspace(0, len(ranks) - 1, self.gallery_queries).astype(int))
                shown = [
                    {**_best(context, self.data, examples, queries, query, items), "rank": ranks[query]}
                    for query in chosen
                ]
                content = {"kind": "retrieval_gallery", "data": self.data, "queries": shown}
                context.save(self.full_name(group), content)
            for name, value in ranking.rank_scores(ranks).items():
                yield f"{group}/{name}", value

    def _labels(self) -> list[str]:
        return id_labels(self.positives, self.a_item, self.b_item)


class _Vectors:
    """The items of a stream with their embeddings `[n, D]`, and the feature that shows them as text."""

    def __init__(self, side: Side, embeddings: np.ndarray, text: str):
        self.side, self.values, self.text = side, embeddings[side.rows], text

    def shown(self, context, data, examples, which) -> list[dict[str, Any]]:
        """Some items as the report shows them."""
        rows = self.side.rows[which]
        entries = [{"example_id": example_id} for example_id in examples["example_id"][rows]]
        if self.text:
            texts = context.texts(data, examples["example_row"][rows], self.text)
            entries = [{**entry, "text": text} for entry, text in zip(entries, texts, strict=True)]
        return entries


def _ranks(queries: _Vectors, items: _Vectors) -> np.ndarray:
    """The rank of each query's best right item, a block of queries at a time."""
    found = [
        ranking.ranks(scores, queries.side.belongs(block, items.side, slice(None)))
        for block, scores in ranking.score_chunks(queries.values, items.values)
    ]
    return np.concatenate(found) if found else np.zeros(0, int)


def _best(context, data, examples, queries, query, items) -> dict[str, Any]:
    """A query with its best answers, as the report shows them."""
    scores = items.values @ queries.values[query]
    best = np.argsort(-scores, kind="stable")[:_SHOWN]
    correct = queries.side.belongs(np.array([query]), items.side, best)[0]
    results = items.shown(context, data, examples, best)
    for result, item, right in zip(results, best, correct, strict=True):
        result |= {"score": scores[item], "correct": right}
    (entry,) = queries.shown(context, data, examples, np.array([query]))
    return {**entry, "results": results}
