"""One example for each of the values that a record's feature has."""

from __future__ import annotations

import copy
import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from mmjax.components import component
from mmjax.data.source import MixtureSource, Record, Source, digest, feature, flat_names
from mmjax.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Explode:
    """A data set whose records hold several values of a feature, such as captions: one example per value.

    An example is its record with one of the values in place of all, and with 'record', the record's
    position, which is the same for all examples of one. So retrieval finds an image by any of its captions
    (`a_item` of that evaluator), as the protocol for COCO and Flickr30k has it. Examples of one record follow
    each other; a record without values has none. Where it is a part of a mixture, 'record' counts in that
    part.

    Attributes:
      dataset: what is read.
      feature: dotted name of the feature that holds several values.
      most: values taken of a record, the first ones; 0 takes all.
    """

    dataset: component("datasets")
    feature: str
    most: int = 0

    def __post_init__(self):
        if self.most < 0:
            raise ConfigError(f"explode.most: got {self.most}, expected 0 or more")

    def prepare(self, data_dir: pathlib.Path) -> None:
        """Prepares the data set.

        Raises:
          DataError: as it does.
        """
        self.dataset.prepare(data_dir)

    def open(self, data_dir: pathlib.Path) -> Source:
        """One example per value; reads that feature of all records once.

        Raises:
          DataError: when there are none, the feature holds no list, or the data is not prepared.
        """
        source = self.dataset.open(data_dir)
        if isinstance(source, MixtureSource) and source.weights != [len(part) for part in source.parts]:
            raise DataError("explode: the weights of a mixture would be lost; explode its sources instead")
        return _Exploded(source, self.feature, self.most)


class _Exploded(Source):
    def __init__(self, source: Source, path: str, most: int):
        self._source, self._path = source, path
        counts = [self._count(source, row, values) for row, values in enumerate(source.column(path))]
        counts = [min(count, most) if most else count for count in counts]
        self._rows = np.repeat(np.arange(len(counts)), counts)
        self._places = np.concatenate([np.arange(count) for count in counts] or [np.zeros(0, int)])
        if not len(self._rows):
            raise DataError(f"{source.name}: no record has a value of '{path}'")
        fingerprint = digest(["explode", source.fingerprint, path, most])
        super().__init__(f"{source.name} by {path}", fingerprint, source.class_names)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Record:
        row = int(self._rows[index])
        record = self._source[row]
        if "record" in record:
            raise DataError(f"{self._source.name}: has a feature 'record', which 'explode' would hide")
        if self._path in flat_names(record):  # else `select` left it out
            value = feature(record, self._path)[int(self._places[index])]
            record = _replaced(record, self._path.split("."), value)
        return {**record, "example_id": index, "record": row}

    def select(self, features: Iterable[str]) -> Source:
        view = copy.copy(self)
        view._source = self._source.select([name for name in features if name != "record"])
        return view

    def verify(self) -> None:
        self._source.verify()

    def _count(self, source: Source, row: int, values: Any) -> int:
        if values is None:
            return 0
        if not isinstance(values, list | tuple | np.ndarray):
            raise DataError(
                f"{source.name}: '{self._path}' of record {row} is {type(values).__name__}, expected a list; "
                "name a feature that holds several values"
            )
        return len(values)


def _replaced(record: Record, steps: list[str], value: Any) -> Record:
    """The record with another value at a dotted path."""
    first, *rest = steps
    return {**record, first: _replaced(record[first], rest, value) if rest else value}
