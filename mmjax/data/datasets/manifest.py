"""A user's own files, listed in a table."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from mmjax.components import suggestion
from mmjax.data import prepared
from mmjax.data.datasets import manifest_rows
from mmjax.data.datasets.manifest_rows import MEDIA, BadRow, Columns, RowChecker
from mmjax.data.datasets.manifest_source import BAD_ROWS, INFO, ManifestSource, RowWriter, read_info
from mmjax.data.source import Source, digest
from mmjax.errors import ConfigError, DataError

_FORMAT = 1  # of the prepared files
_BATCH = 512  # rows checked at a time
_LOG_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The rows of a JSONL, CSV, TSV or Parquet file, each one example.

    The columns `image`, `audio` and `video` hold paths, relative to the manifest's directory, and
    `text` holds text; a row may lack any of them, but not all. `split` names the row's split; without
    that column all rows are 'train'. Preparing checks every row, decoding every image and the first
    frame of every audio and video file. Bad rows are left out and listed with their reasons in
    `bad_rows.jsonl`, where `row` counts from 0. The media stay where they are and are read when
    needed. A record's 'example_id' is its row.

    What is prepared is found again by the content of the manifest and these settings. The fingerprint
    covers the SHA-256 of every media file, and neither paths of directories nor times, so a moved
    data set keeps it. A file whose size changed is an error when it is read; `verify` reads them all.

    Attributes:
      path: the manifest.
      split: which rows; empty takes all.
      images, audios, videos, texts: further columns of that kind.
      labels: columns that hold one class; the record has its index.
      multi_labels: columns that hold any number of classes, as a list or separated by '|'; the record
        has a multi-hot float32 `[N]`.
      numbers: columns that hold a number (regression); the record has a float.
      class_names: label column -> the names of its classes, in order. By default they are those of the
        rows in split 'train' (of all rows where there are none), sorted.
      max_bad_fraction: more bad rows than this fail the preparation.
      max_image_pixels: an image with more pixels is a bad row.
    """

    path: str
    split: str = "train"
    images: Sequence[str] = dataclasses.field(default_factory=list)
    audios: Sequence[str] = dataclasses.field(default_factory=list)
    videos: Sequence[str] = dataclasses.field(default_factory=list)
    texts: Sequence[str] = dataclasses.field(default_factory=list)
    labels: Sequence[str] = dataclasses.field(default_factory=list)
    multi_labels: Sequence[str] = dataclasses.field(default_factory=list)
    numbers: Sequence[str] = dataclasses.field(default_factory=list)
    class_names: dict[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    max_bad_fraction: float = 0.01
    max_image_pixels: int = 64_000_000

    def __post_init__(self):
        named = [column for columns in self._named().values() for column in columns]
        for column, count in collections.Counter(named).items():
            if count > 1 or column in ("example_id", "split"):
                raise ConfigError(f"manifest: column '{column}' is named twice or has a meaning of its own")
        for column in self.class_names:
            if column not in (*self.labels, *self.multi_labels):
                raise ConfigError(f"manifest.class_names: '{column}' is not in labels or multi_labels")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"manifest.max_bad_fraction: got {self.max_bad_fraction}, expected 0 to 1")

    def prepare(self, data_dir: pathlib.Path) -> None:
        """Checks all rows and writes the list of the good ones; nothing when that is done.

        After mending bad files, delete the prepared directory (the one that `bad_rows.jsonl` is in).

        Raises:
          DataError: when the manifest cannot be read, lacks a column, or has too many bad rows.
        """
        target = self._directory(data_dir)
        if not prepared.is_published(target):
            with prepared.scratch(target.parent) as directory:
                info = self._write(directory)
                rejected = target.with_name(f"{target.name}-{BAD_ROWS}")
                shutil.copyfile(directory / BAD_ROWS, rejected)  # stays where nothing else will
                self._judge(info, rejected)
                rejected.unlink(missing_ok=True)  # another process may do the same
                prepared.publish(directory, target)
        info = read_info(target)
        self._judge(info, target / BAD_ROWS)
        if info["bad"]:
            logging.warning(
                "manifest %s: left out %d of %d rows, see %s",
                self.path, info["bad"], info["rows"], target / BAD_ROWS,
            )  # fmt: skip

    def open(self, data_dir: pathlib.Path) -> Source:
        """The good rows of the split.

        Raises:
          DataError: when they are not prepared or damaged, or the split has none.
        """
        return ManifestSource(self._directory(data_dir), pathlib.Path(self.path).expanduser(), self.split)

    def _named(self) -> dict[str, list[str]]:
        """Kind -> the columns that the config names, or that are used where they exist."""
        named = {"label": self.labels, "multi_label": self.multi_labels, "number": self.numbers}
        further = {"image": self.images, "audio": self.audios, "video": self.videos, "text": self.texts}
        return {kind: list(columns) for kind, columns in named.items()} | {
            kind: list(dict.fromkeys([kind, *columns])) for kind, columns in further.items()
        }

    def _columns(self, found: set[str]) -> Columns:
        """The columns to read, given those that the manifest has."""
        kinds = {}
        for kind, columns in self._named().items():
            for column in columns:
                if column in found:
                    kinds[column] = kind
                elif column != kind:  # one that the config names
                    raise DataError(
                        f"manifest {self.path}: has no column '{column}'{suggestion(column, found)}; "
                        f"it has: {', '.join(sorted(found))}"
                    )
        columns = Columns(kinds)
        if not columns.of(*MEDIA, "text"):
            raise DataError(
                f"manifest {self.path}: has no column of media or text; expected one of image, audio, video, "
                f"text, or one named in images, audios, videos, texts; it has: {', '.join(sorted(found))}"
            )
        return columns

    def _directory(self, data_dir: pathlib.Path) -> pathlib.Path:
        """Where the prepared rows are: a name made of the manifest's content and the settings."""
        path = pathlib.Path(self.path).expanduser()
        if not path.is_file():
            raise DataError(f"manifest.path: no file {path}")
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        names = {column: list(names) for column, names in self.class_names.items()}
        settings = [_FORMAT, content, path.suffix, self._named(), names, self.max_image_pixels]
        return data_dir / "manifest" / digest(settings)[:32]

    def _write(self, directory: pathlib.Path) -> dict[str, Any]:
        """Writes the good rows of each split, the list of bad rows, and what is known of all."""
        path = pathlib.Path(self.path).expanduser()
        columns, class_names, total = self._survey(path)
        checker = RowChecker(path.parent, columns, class_names, self.max_image_pixels)
        writers: dict[str, RowWriter] = {}
        bad = 0
        with (directory / BAD_ROWS).open("w", encoding="utf-8") as bad_rows:
            for row, split, kept in _progress(_check_all(path, checker), total, path):
                if isinstance(kept, BadRow):
                    bad += 1
                    bad_rows.write(json.dumps({"row": row, "reason": str(kept)}, ensure_ascii=False) + "\n")
                    continue
                if split not in writers:
                    writers[split] = RowWriter(directory / f"rows-{len(writers)}.array_record")
                writers[split].write({"example_id": row, **kept})
        info = {
            "rows": total,
            "bad": bad,
            "columns": columns.kinds,
            "class_names": class_names,
            "splits": {split: writer.close() for split, writer in writers.items()},
        }
        (directory / INFO).write_text(json.dumps(info, ensure_ascii=False, indent=1), encoding="utf-8")
        return info

    def _survey(self, path: pathlib.Path) -> tuple[Columns, dict[str, list[str]], int]:
        """A first reading: the columns, the class names, the number of rows."""
        found: set[str] = set()
        classes: dict[tuple[str, bool], set[str]] = collections.defaultdict(set)
        total = 0
        for row in manifest_rows.read_rows(path):
            total += 1
            if isinstance(row, BadRow):
                continue
            found |= row.keys()
            training = row.get("split", "train") == "train"
            for kind in ("label", "multi_label"):
                for column in self._named()[kind]:
                    classes[column, training] |= set(manifest_rows.class_names_in(kind, row.get(column)))
        if not total:
            raise DataError(f"manifest {path}: has no rows")
        columns = self._columns(found)
        class_names = {
            column: list(self.class_names.get(column, ()))
            or manifest_rows.sort_names(classes[column, True] or classes[column, False])
            for column in columns.of("label", "multi_label")
        }
        return columns, class_names, total

    def _judge(self, info: dict[str, Any], bad_rows: pathlib.Path) -> None:
        """Raises where too many rows are bad."""
        bad, total = info["bad"], info["rows"]
        if bad > self.max_bad_fraction * total:
            with bad_rows.open(encoding="utf-8") as file:
                first = json.loads(file.readline())
            raise DataError(
                f"manifest {self.path}: {bad} of {total} rows are bad, more than max_bad_fraction="
                f"{self.max_bad_fraction} (row {first['row']}: {first['reason']}); all are in {bad_rows}"
            )


def _check_all(path, checker) -> Iterator[tuple[int, str, dict[str, Any] | BadRow]]:
    """(row number, its split, what is kept of it or why it is bad), in order."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders release the GIL
        rows = enumerate(manifest_rows.read_rows(path))
        while batch := list(itertools.islice(rows, _BATCH)):
            yield from pool.map(lambda numbered: _check(checker, *numbered), batch)


def _check(checker, number, row):
    if isinstance(row, BadRow):
        return number, "", row
    split = row.get("split", "train")
    try:
        if not isinstance(split, str) or not split:
            raise BadRow("split: is empty")
        return number, split, checker(row)
    except BadRow as reason:
        return number, "", reason


def _progress(results, total, path):
    """Passes the results on, with a line in the log now and then."""
    start = said = time.monotonic()
    for done, result in enumerate(results, start=1):
        yield result
        now = time.monotonic()
        if now - said > _LOG_SECONDS:
            rate = done / (now - start)
            left = (total - done) / rate
            logging.info("manifest %s: %d of %d rows, %.0f/s, %.0f s left", path, done, total, rate, left)
            said = now
