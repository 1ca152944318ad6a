"""Results of a run as files: embeddings as Parquet or npy, predictions as JSON lines, a search as a picture.

A file is written beside its place and put there when it is whole; one that is already there is
never replaced.
"""

from __future__ import annotations

import contextlib
import itertools
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
from mmjax.reports import gallery_picture, pictures
from mmjax.reports.gallery import retrieval
from mmjax.reports.html import element, page
from mmjax.reports.records import Records
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
    """Writes what a search found, with the query: a picture, or one self-contained HTML file.

    Args:
      run: the run.
      query: stream -> value, as it was searched for.
      hits: what was found.
      out: the file, ending in `.png` or `.html`.
      source: where it was found; the name of a data set gives the images of its records.

    Raises:
      ConfigError: `out` is there already, or has another ending, or cannot be written.
    """
    out = pathlib.Path(out)
    check_gallery(out)
    title = f"Search in {source}" if source else "Search"
    asked = {**_shown(query, run.kinds), "title": _called(query, run.kinds)}
    results = [_result(hit, run.kinds) for hit in hits]
    records = Records(run.config)
    with _new_file(out) as path:
        try:
            if out.suffix == ".html":
                shown = retrieval({"data": source, "queries": [{**asked, "results": results}]}, records.image)
                text = page(title, CSS, element("main", element("h1", title), shown))
                path.write_text(text, encoding="utf-8")
            else:
                cards = [_card(entry, source, records) for entry in results]
                gallery_picture.draw(title, _card(asked, "", records), cards).save(path, "PNG")
        except OSError as error:
            raise ConfigError(f"{out}: cannot be written ({error}); choose another place") from error


def check_gallery(out: pathlib.Path) -> None:
    """Raises a `ConfigError` unless `out` is a new file of a kind that `write_gallery` writes."""
    if out.suffix not in (".png", ".html"):
        raise ConfigError(f"{out}: expected a name that ends in .png or .html")
    _check_new(out)


def default_gallery(run: Run, workdir: pathlib.Path, query: Mapping[str, Any], source: str) -> pathlib.Path:
    """A free path for the picture of a search: `<workdir>/searches/<query>-in-<source>.png`.

    Raises:
      ConfigError: its directory cannot be made.
    """
    folder = workdir / "searches"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error}); name a file with --gallery=FILE") from error
    stem = f"{_slug(_called(query, run.kinds))}-in-{_slug(pathlib.Path(source).name)}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(path for path in (folder / f"{name}.png" for name in names) if not path.exists())


def _slug(text: str) -> str:
    """Words of letters and digits joined by '-', 60 characters at most."""
    words = "".join(c if c.isalnum() else " " for c in text).split()
    return "-".join(words)[:60].strip("-") or "it"


def _shown(values: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    """An entry of a gallery: the item's first image, else its first text, else what it is called."""
    for kind in ("image", "text"):
        for stream, value in values.items():
            if kinds[stream] == kind:
                return {kind: read_value(value, kind)}
    return {"text": " ".join(f"{stream} {value}" for stream, value in values.items())} if values else {}


def _called(query: Mapping[str, Any], kinds: Mapping[str, str]) -> str:
    """What a query is called: its text, the name of its file, or its stream."""
    ((stream, value),) = query.items()
    if kinds[stream] != "text" and isinstance(value, str | pathlib.Path):
        return pathlib.Path(value).name
    return value if isinstance(value, str) else stream


def _result(hit: Hit, kinds: Mapping[str, str]) -> dict[str, Any]:
    """The entry of a hit."""
    entry = _shown(hit.values, kinds)
    if isinstance(hit.name, int):
        entry["example_id"] = hit.name
    name = str(hit.name) if "text" in entry else hit.title
    return {**entry, "name": name, "title": hit.title, "score": hit.score}


def _card(entry: Mapping[str, Any], source: str, records: Records) -> gallery_picture.Card:
    """An entry as the picture shows it; one whose image cannot be read is shown by its title."""
    try:
        found = entry.get("image")
        if found is None and "example_id" in entry:
            found = records.image(source, entry["example_id"])
        image = None if found is None else pictures.decode(found)
    except DataError:
        image = None
    return gallery_picture.Card(entry["title"], image, entry.get("score"))


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
    _check_new(out)
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


def _check_new(out: pathlib.Path) -> None:
    if out.exists():
        raise _taken(out)
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no directory '{out.parent}'")


def _taken(out: pathlib.Path) -> ConfigError:
    return ConfigError(f"{out}: is there already; remove it, or choose another name")
