"""The prepared rows of a manifest: writing and reading them."""

from __future__ import annotations

import copy
import hashlib
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from mmjax.data import prepared
from mmjax.data.datasets.manifest_rows import MEDIA
from mmjax.data.source import Record, Source, digest
from mmjax.errors import DataError

INFO, BAD_ROWS = "info.json", "bad_rows.jsonl"


class RowWriter:
    """Writes the rows of one split as JSON in an ArrayRecord file."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._writer = ArrayRecordWriter(str(path), "group_size:1")
        self._sha256 = hashlib.sha256()
        self._rows = 0

    def write(self, row: dict[str, Any]) -> None:
        """Adds a row."""
        line = json.dumps(row, ensure_ascii=False, sort_keys=True).encode()
        self._writer.write(line)
        self._sha256.update(line + b"\n")
        self._rows += 1

    def close(self) -> dict[str, Any]:
        """Finishes the file; returns its name, number of rows, and the digest of their content."""
        self._writer.close()
        return {"file": self._path.name, "rows": self._rows, "sha256": self._sha256.hexdigest()}


def read_info(directory: pathlib.Path) -> dict[str, Any]:
    """What is known of a prepared manifest: counts, columns, class names, splits."""
    return json.loads((directory / INFO).read_text(encoding="utf-8"))


class ManifestSource(Source):
    """The good rows of a split of a prepared manifest.

    Args:
      directory: the prepared rows.
      path: the manifest, whose directory relative paths start from.
      split: which rows; empty takes all.

    Raises:
      DataError: when the rows are not prepared or damaged, or the split has none.
    """

    def __init__(self, directory: pathlib.Path, path: pathlib.Path, split: str):
        name = f"manifest {path}/{split}" if split else f"manifest {path}"
        prepared.read_digests(directory, name)
        info = read_info(directory)
        splits = [info["splits"].get(split)] if split else list(info["splits"].values())
        if None in splits:
            known = ", ".join(f"{key} ({entry['rows']})" for key, entry in info["splits"].items())
            raise DataError(f"{name}: no usable row is in split '{split}'; the splits are: {known or 'none'}")
        self.directory = directory
        self.folder = path.parent
        self._kinds: dict[str, str] = info["columns"]
        self._rows = ArrayRecordDataSource([str(directory / entry["file"]) for entry in splits])
        content = [entry["sha256"] for entry in splits]
        fingerprint = digest(["manifest", split, content, self._kinds, info["class_names"]])
        super().__init__(name, fingerprint, info["class_names"])

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Record:
        row = self._row(index)
        record: Record = {"example_id": row["example_id"]}
        for column, kind in self._kinds.items():
            value = row[column]
            if kind == "multi_label":
                names = self.class_names[column]
                value = np.isin(np.arange(len(names)), value).astype(np.float32)
            elif kind in MEDIA and value is not None:
                value = self._media(row, column).read_bytes()
            record[column] = value
        return record

    def select(self, features: Iterable[str]) -> Source:
        wanted = set(features)
        view = copy.copy(self)
        view._kinds = {column: kind for column, kind in self._kinds.items() if column in wanted}
        return view

    def verify(self) -> None:
        prepared.verify_digests(self.directory, self.name)
        for index in range(len(self)):
            row = self._row(index)
            for column, kind in self._kinds.items():
                if kind in MEDIA and row[column] is not None:
                    with self._media(row, column).open("rb") as file:
                        found = hashlib.file_digest(file, "sha256").hexdigest()
                    if found != row[column][2]:
                        raise self._changed(row, column, "has other content")

    def _row(self, index):
        try:
            return json.loads(self._rows[index])
        except Exception as error:  # whatever the reader raises at damaged bytes
            cause = " ".join(str(error).split())[:200]
            raise DataError(
                f"{self.name}: record {index} cannot be read ({cause}); "
                f"delete {self.directory} and prepare again"
            ) from error

    def _media(self, row, column) -> pathlib.Path:
        """The file of a row, after checking that it has the size it had."""
        value, size, _ = row[column]
        path = self.folder / value
        if not path.is_file():
            raise self._changed(row, column, "is gone")
        if path.stat().st_size != size:
            raise self._changed(row, column, f"has {path.stat().st_size} bytes, not {size}")
        return path

    def _changed(self, row, column, what):
        return DataError(
            f"{self.name}: row {row['example_id']}: {column} {row[column][0]} {what} since it was prepared; "
            f"restore it, or delete {self.directory} and prepare again"
        )
