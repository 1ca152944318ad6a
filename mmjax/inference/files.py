"""Results of a run as files: embeddings as Parquet or npy, predictions as JSON lines, a search as a page.

A file is written beside its place and put there when it is whole; one that is already there is
never replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmjax.components import suggestion
from mmjax.errors import ConfigError, DataError
from mmjax.inference.heads import EMBEDDINGS, PREDICTIONS
from mmjax.inference.items import Items, read_value
from mmjax.inference.run import Run
from mmjax.inference.search import Hit
from mmjax.reports.gallery import retrieval
from mmjax.reports.html import element, page
from mmjax.reports.records import RecordImages
from mmjax.reports.style import CSS

_ROW_GROUP = 8192  # rows that are written together


def embed_to_file(
    run: Run, source: Items | pathlib.Path | str, out: pathlib.Path | str, head: str | None = None
) -> int:
    """Embeds everything in `source` and writes it to a file, batch by batch.

    Args:
      run: the run.
      source: a folder, a manifest or a data set of the run, see `Run.outputs`.
      out: ends in `.parquet`: a column `item`, and a column of `D` float32 per projection head; or in
        `.npy`: the `[n, D]` of one head, in the order of the source.
      head: the only one to write; None writes all, and is enough for `.npy` where there is one.

    Returns:
      How many items were embedded.

    Raises:
      ConfigError: `out` is there already, or has another ending; the head is not there, or not clear.
      DataError: an item cannot be read.
    """
    out = pathlib.Path(out)
    if out.suffix not in (".parquet", ".npy"):
        raise ConfigError(f"{out}: expected a name that ends in .parquet or .npy")
    with _new_file(out) as path:
        chunks = ((c.names, _chosen(c.outputs, head)) for c in run.outputs(source, EMBEDDINGS))
        return _write_parquet(path, chunks) if out.suffix == ".parquet" else _write_npy(path, chunks)


def predict_to_file(
    run: Run, source: Items | pathlib.Path | str, out: pathlib.Path | str, top_k: int = 5
) -> int:
    """Predicts everything in `source`: a line of JSON per item, `{'item': name, head: prediction, ...}`.

    Args:
      run: the run.
      source: see `Run.outputs`.
      out: the file, ending in `.jsonl`.
      top_k: see `Run.predict`.

    Returns:
      How many items were predicted.

    Raises:
      ConfigError: `out` is there already, or has another ending; no head predicts.
      DataError: an item cannot be read.
    """
    out = pathlib.Path(out)
    if out.suffix != ".jsonl":
        raise ConfigError(f"{out}: expected a name that ends in .jsonl")
    count = 0
    with _new_file(out) as path, path.open("w", encoding="utf-8") as file:
        for chunk in run.outputs(source, PREDICTIONS):
            predictions = run.decide(chunk, top_k)
            for row, name in enumerate(chunk.names):
                line = {"item": name, **{head: rows[row] for head, rows in predictions.items()}}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += len(chunk.names)
    return count


def write_gallery(
    run: Run, query: Mapping[str, Any], hits: Sequence[Hit], out: pathlib.Path | str, source: str = ""
) -> None:
    """Writes a page that shows what a search found: one self-contained HTML file.

    Args:
      run: the run.
      query: stream -> value, as it was searched for.
      hits: what was found.
      out: the file, ending in `.html`.
      source: where it was found; the name of a data set gives the images of its records.

    Raises:
      ConfigError: `out` is there already, or has another ending.
    """
    out = pathlib.Path(out)
    if out.suffix != ".html":
        raise ConfigError(f"{out}: expected a name that ends in .html")
    asked = _shown(query, run.kinds)
    results = [{**_shown(hit.values, run.kinds), **_named(hit), "score": hit.score} for hit in hits]
    gallery = retrieval(
        {"data": source, "queries": [{**asked, "results": results}]}, RecordImages(run.config)
    )
    title = f"Search in {source}" if source else "Search"
    with _new_file(out) as path:
        path.write_text(page(title, CSS, element("main", element("h1", title), gallery)), encoding="utf-8")


def _shown(values: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    """An entry of a gallery: the item's first image or text, else what it is called."""
    for stream, value in values.items():
        if kinds[stream] in ("image", "text"):
            return {kinds[stream]: read_value(value, kinds[stream])}
    return {"text": " ".join(f"{stream} {value}" for stream, value in values.items())} if values else {}


def _named(hit: Hit) -> dict[str, Any]:
    return {"example_id": hit.name} if isinstance(hit.name, int) else {"name": hit.name}


def _chosen(outputs: dict[str, np.ndarray], head: str | None) -> dict[str, np.ndarray]:
    if head is None:
        return outputs
    if head not in outputs:
        raise ConfigError(
            f"no projection head '{head}'{suggestion(head, outputs)}; there is: {', '.join(outputs)}"
        )
    return {head: outputs[head]}


def _write_parquet(path, chunks) -> int:
    writer, waiting, count = None, [], 0
    try:
        for names, outputs in chunks:
            columns = {"item": pa.array(names)} | {head: _vectors(x) for head, x in outputs.items()}
            waiting.append(pa.table(columns))
            count += len(names)
            writer = writer or pq.ParquetWriter(path, waiting[0].schema)
            if sum(table.num_rows for table in waiting) >= _ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if writer is None:
            raise DataError("there is nothing to embed")
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    finally:
        if writer is not None:
            writer.close()
    return count


def _vectors(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).ravel()), values.shape[1])


def _write_npy(path, chunks) -> int:
    parts = []
    for _, outputs in chunks:
        if len(outputs) != 1:
            raise ConfigError(
                f".npy holds one embedding of: {', '.join(outputs)}; name the head, or use .parquet"
            )
        parts += outputs.values()
    if not parts:
        raise DataError("there is nothing to embed")
    np.save(path, np.concatenate(parts).astype(np.float32), allow_pickle=False)
    return sum(map(len, parts))


@contextlib.contextmanager
def _new_file(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to, which becomes `out` after the block; nothing is left where that fails."""
    if out.exists():
        raise _taken(out)
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no directory '{out.parent}'")
    partial = out.with_name(f".{out.stem}-{uuid.uuid4().hex}{out.suffix}")
    try:
        yield partial
        try:
            os.link(partial, out)  # unlike a rename, this never replaces a file
        except FileExistsError:
            raise _taken(out) from None
        except OSError:  # a file system without hard links
            os.rename(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def _taken(out: pathlib.Path) -> ConfigError:
    return ConfigError(f"{out}: is there already; remove it, or choose another name")
