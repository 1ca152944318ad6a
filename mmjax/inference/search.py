"""Search: which items are most similar to a query, in the space that an objective made for them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.errors import ConfigError, DataError
from mmjax.inference.heads import EMBEDDINGS
from mmjax.inference.items import Items, check_stream, read_items
from mmjax.reports.format import cut
from mmjax.reports.records import Records

if TYPE_CHECKING:
    from mmjax.inference.run import Run


@dataclasses.dataclass(frozen=True)
class Hit:
    """A found item.

    Attributes:
      name: what the item is called: a path, a number, or the example_id of a record.
      score: dot product of the embeddings; the cosine where the heads normalise.
      values: what the item was read from, stream -> path or text; empty for records.
      text: what it says: its text, or the text or classes of its record; empty where nothing is known.
    """

    name: str | int
    score: float
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    text: str = ""

    @property
    def title(self) -> str:
        """What to call it before people: its text on one line and its name, or its name alone."""
        text = " ".join(self.text.split())
        return f"{cut(text, 80)} ({self.name})" if text else str(self.name)


@dataclasses.dataclass(frozen=True)
class Index:
    """Items that have been embedded.

    Attributes:
      names: of the `n` items.
      embeddings: projection head -> `[n, D]`; a row is zeros where the item lacks what the head reads.
      values: of each item, see `Hit`; None where they are not known.
      data: name of the run's data set that they are the records of; empty for other items.
    """

    names: list[str | int]
    embeddings: dict[str, np.ndarray]
    values: list[dict[str, Any]] | None = None
    data: str = ""

    def best(self, head: str, query: np.ndarray, k: int) -> list[Hit]:
        """The `k` items whose embedding has the largest dot product with `query` `[D]`, best first."""
        vectors = self.embeddings[head]
        there = np.flatnonzero(vectors.any(axis=1))
        scores = vectors[there] @ query
        best = np.argsort(-scores, kind="stable")[:k]
        values = self.values or [{}] * len(vectors)
        return [Hit(self.names[there[i]], float(scores[i]), values[there[i]]) for i in best]


def make_index(run: Run, source: Items | pathlib.Path | str) -> Index:
    """Embeds a folder, a manifest or a data set of the run; reads a Parquet file made before.

    Raises:
      DataError: the Parquet file holds no embeddings of this model's heads.
    """
    if not isinstance(source, Items) and pathlib.Path(source).suffix == ".parquet":
        return _read_parquet(pathlib.Path(source), run)
    data = str(source) if not isinstance(source, Items) and str(source) in run.datasets else ""
    if not data and not isinstance(source, Items):
        source = read_items(source, run.kinds)
    names: list[str | int] = []
    parts: dict[str, list[np.ndarray]] = {}
    for chunk in run.outputs(source, EMBEDDINGS):
        names += chunk.names
        for head, values in chunk.outputs.items():
            parts.setdefault(head, []).append(values)
    embeddings = {head: np.concatenate(values) for head, values in parts.items()}
    return Index(names, embeddings, source.values if isinstance(source, Items) else None, data)


def search(
    run: Run,
    source: Items | Index | pathlib.Path | str,
    query: Mapping[str, Any],
    *,
    k: int = 10,
    find: str | None = None,
) -> list[Hit]:
    """See `Run.search`.

    Raises:
      ConfigError: a query that is not one stream with one value, streams that no objective compares,
        or a `k` that is not 1 or more.
    """
    if k < 1:
        raise ConfigError(f"k: got {k}, expected 1 or more")
    if len(query) != 1:
        raise ConfigError(f"got a query of {len(query)} streams, expected one, such as text='a cat'")
    (stream,) = query
    check_stream(stream, run.kinds)
    if find is not None:
        check_stream(find, run.kinds)
    index = source if isinstance(source, Index) else make_index(run, source)
    head, other = comparable(run, stream, list(index.embeddings), find)
    vectors, records = run.embed(**query)[head], Records(run.config)
    if len(vectors) != 1:
        raise ConfigError(f"got {len(vectors)} queries, expected one")
    return [_with_text(hit, index, run, records) for hit in index.best(other, vectors[0], k)]


def _with_text(hit: Hit, index: Index, run: Run, records: Records) -> Hit:
    if index.data:
        return dataclasses.replace(hit, text=records.text(index.data, hit.name))
    texts = (value for stream, value in hit.values.items() if run.kinds[stream] == "text")
    return dataclasses.replace(hit, text=next((text for text in texts if isinstance(text, str)), ""))


def comparable(run: Run, stream: str, heads: Sequence[str], find: str | None) -> tuple[str, str]:
    """The head that embeds the query, and the one of `heads` whose embeddings it is compared with.

    Two heads are compared where an objective pulls their outputs together (its `a` and `b`), and
    every head with itself.

    Args:
      run: the run.
      stream: of the query.
      heads: that the items are embedded with.
      find: the stream that the items are to be compared by; None prefers another than `stream`.

    Raises:
      ConfigError: there are no two such heads.
    """
    reads = {name: head.get("reads") for name, head in run.heads.items()}
    objectives = run.config["objectives"].values()
    together = [{o["a"], o["b"]} for o in objectives if "a" in o and "b" in o]
    own = [
        name for name, entry in reads.items() if entry == stream and run.heads[name]["type"] == "projection"
    ]
    pairs = [(a, b) for a in own for b in heads if a == b or {a, b} in together]
    if find is not None:
        pairs = [(a, b) for a, b in pairs if reads[b] == find]
    if not pairs:
        items = find or " or ".join(dict.fromkeys(str(reads[name]) for name in heads))
        raise ConfigError(
            f"a query of {stream} cannot be compared with items of {items}: no projection heads of both "
            "are pulled together by an objective of this run"
        )
    return min(pairs, key=lambda pair: reads[pair[1]] == stream)


def _read_parquet(path: pathlib.Path, run: Run) -> Index:
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from None
    heads = [name for name in table.column_names if name in run.heads]
    if "item" not in table.column_names or not heads:
        raise DataError(
            f"{path}: holds no embeddings of this run, expected columns item, {', '.join(run.heads)}"
        )
    vectors = {head: np.array(table[head].to_pylist(), np.float32) for head in heads}
    return Index(table["item"].to_pylist(), vectors)
