"""Reading the rows of a manifest and checking each one."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import av
import pyarrow
import pyarrow.parquet
from PIL import Image

from mmjax.data.transforms.media import reason
from mmjax.errors import DataError

MEDIA = ("image", "audio", "video")
FORMATS = (".jsonl", ".csv", ".tsv", ".parquet")


class BadRow(Exception):
    """Why a row cannot be used."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """What the columns of a manifest hold.

    Attributes:
      kinds: column -> 'image', 'audio', 'video', 'text', 'label', 'multi_label' or 'number'.
    """

    kinds: Mapping[str, str]

    def of(self, *kinds: str) -> list[str]:
        """The columns of some kinds, in order."""
        return [column for column, kind in self.kinds.items() if kind in kinds]


def read_rows(path: pathlib.Path) -> Iterator[dict[str, Any] | BadRow]:
    """The rows of a JSONL, CSV, TSV or Parquet file; a `BadRow` stands for one that cannot be parsed.

    Raises:
      DataError: when the file as a whole cannot be read.
    """
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise DataError(f"manifest {path}: expected a file that ends in one of {', '.join(FORMATS)}")
    try:
        yield from readers[path.suffix](path)
    except (OSError, UnicodeDecodeError, csv.Error, pyarrow.ArrowException) as error:
        raise DataError(f"manifest {path}: cannot be read ({error})") from None


def _read_jsonl(path):
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield BadRow(f"is not JSON ({error})")
                continue
            yield row if isinstance(row, dict) else BadRow("is not a JSON object")


def _read_csv(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","):
            if None in row:
                yield BadRow("has more cells than the header")
            else:
                yield {column: cell or None for column, cell in row.items()}


def _read_parquet(path):
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024):
        yield from batch.to_pylist()


def class_names_in(kind: str, value: Any) -> list[str]:
    """The names of the classes in a cell of a 'label' or 'multi_label' column.

    Numbers are names too; whole ones without a point, since Parquet may hold them as floats.
    """
    if value is None:
        return []
    if kind == "multi_label" and isinstance(value, list):
        return [name for item in value for name in class_names_in("label", item)]
    if kind == "multi_label" and isinstance(value, str):
        return [name.strip() for name in value.split("|") if name.strip()]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return [str(value).strip()] if str(value).strip() else []


def sort_names(names: set[str]) -> list[str]:
    """Class names in order; as numbers when all are."""
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


@dataclasses.dataclass(frozen=True)
class RowChecker:
    """Turns a row into what is kept of it, or says what is wrong.

    Attributes:
      folder: what relative paths start from.
      columns: what to read.
      class_names: label column -> names.
      max_image_pixels: largest height times width.
    """

    folder: pathlib.Path
    columns: Columns
    class_names: Mapping[str, Sequence[str]]
    max_image_pixels: int

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Column -> `[path, bytes, sha256]` of media, text, class index, class indices, or number.

        Raises:
          BadRow: with the first reason found.
        """
        kept = {}
        for column in self.columns.of(*MEDIA, "text"):
            value, kind = row.get(column), self.columns.kinds[column]
            if value is None:
                kept[column] = None
            elif not isinstance(value, str):
                raise BadRow(f"{column}: is not text")
            elif not value.strip():
                raise BadRow(f"{column}: is empty")
            else:
                kept[column] = value if kind == "text" else self._media(column, kind, value)
        if all(value is None for value in kept.values()):
            raise BadRow(f"has none of {', '.join(kept)}")
        for column in self.columns.of("label", "multi_label", "number"):
            value, kind = row.get(column), self.columns.kinds[column]
            kept[column] = _number(column, value) if kind == "number" else self._label(column, kind, value)
        return kept

    def _label(self, column, kind, value):
        names = class_names_in(kind, value)
        for name in names:
            if name not in self.class_names[column]:
                raise BadRow(f"{column}: unknown class '{name}'")
        indices = sorted({self.class_names[column].index(name) for name in names})
        if kind == "multi_label":
            return indices
        if not indices:
            raise BadRow(f"{column}: is empty")
        return indices[0]

    def _media(self, column, kind, value):
        path = self.folder / value
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = path.stat().st_size
            _check_image(path, self.max_image_pixels) if kind == "image" else _check_stream(path, kind)
        except FileNotFoundError:
            raise BadRow(f"{column}: no file {value}") from None
        except BadRow as error:
            raise BadRow(f"{column}: {value} {error}") from None
        except Exception as error:  # decoders raise whatever they like at damaged input
            raise BadRow(f"{column}: {value} cannot be decoded ({reason(error)})") from None
        return [value, size, sha256]


def _number(column, value):
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadRow(f"{column}: {'is empty' if value is None else f'{value!r} is not a number'}")
    return number


def _check_image(path: pathlib.Path, max_pixels: int) -> None:
    """Decodes the whole image, after looking at its size."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            if image.width * image.height > max_pixels:
                raise BadRow(f"has {image.width} x {image.height} pixels, more than {max_pixels} in all")
            image.load()
    except Image.DecompressionBombError:
        raise BadRow(f"has more than {max_pixels} pixels") from None


def _check_stream(path: pathlib.Path, kind: str) -> None:
    """Opens an audio or video file and decodes its first frame."""
    with av.open(str(path)) as container:
        streams = container.streams.audio if kind == "audio" else container.streams.video
        if not streams:
            raise BadRow(f"has no {kind} stream")
        if next(container.decode(streams[0]), None) is None:
            raise BadRow(f"has no {kind} frame")
