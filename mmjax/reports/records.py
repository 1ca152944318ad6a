"""What the examples a run was evaluated on look like and say, from the prepared data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from mmjax import components
from mmjax.data.loading import data_dir, eval_labels
from mmjax.data.source import Record, Source, feature
from mmjax.errors import DataError, MmjaxError


class Records:
    """Images and texts by (data set's name, example_id); a data set is opened when first asked for.

    Data that is not prepared on this machine is told once, in the log, and has neither.

    Args:
      config: the resolved config of the run.
    """

    def __init__(self, config: Mapping[str, Any]):
        self._config = config
        self._sources: dict[str, Source | None] = {}
        self._positions: dict[str, dict[int, int]] = {}

    def image(self, data: str, example_id: int) -> bytes | np.ndarray | None:
        """The first feature of an image stream that holds bytes or an array."""
        values = self._values("image", self._record(data, example_id))
        return next((value for value in values if isinstance(value, bytes | np.ndarray)), None)

    def text(self, data: str, example_id: int) -> str:
        """What an example is called: the first text of a text stream, else the names of its classes.

        Classes are written as 'label: name'. It is empty where there are neither.
        """
        record = self._record(data, example_id)
        for value in self._values("text", record):
            parts = value if isinstance(value, list | tuple) else [value]
            if text := ", ".join(part for part in parts if isinstance(part, str) and part):
                return text
        return ", ".join(self._classes(data, record)) if record is not None else ""

    def _record(self, data, example_id) -> Record | None:
        if data not in self._sources:
            self._sources[data] = self._open(data)
        source = self._sources[data]
        return None if source is None else self._find(data, source, int(example_id))

    def _open(self, data):
        try:
            section = self._config["data"]
            spec = section["train"] if data == "train" else section["eval"][data]["dataset"]
            return components.build("datasets", spec).open(data_dir(section))
        except (MmjaxError, KeyError) as error:
            logging.info("no images and texts of the data set '%s': %s", data, error)
            return None

    def _find(self, data, source, example_id):
        # Ids are mostly positions; where they are not, every record is read once.
        if data not in self._positions and 0 <= example_id < len(source):
            record = source[example_id]
            if record["example_id"] == example_id:
                return record
        if data not in self._positions:
            self._positions[data] = {record["example_id"]: i for i, record in enumerate(source)}
        position = self._positions[data].get(example_id)
        return None if position is None else source[position]

    def _values(self, kind: str, record: Record | None) -> Iterator[Any]:
        """The values of the features that streams of a kind read from a record, as far as it has them."""
        for name, stream in self._config["model"]["streams"].items():
            if stream["kind"] == kind and record is not None:
                paths = self._config["data"]["streams"][name]["features"]
                yield from (value for path in paths if (value := _value(record, path)) is not None)

    def _classes(self, data: str, record: Record) -> Iterator[str]:
        for label, path in eval_labels(self._config["data"], data).items():
            names = self._sources[data].class_names.get(path)
            value = None if names is None else _value(record, path)
            if value is None:
                continue
            several = np.flatnonzero(value) if isinstance(value, np.ndarray) else [value]  # multi-hot, or one
            if len(several):
                yield f"{label}: {', '.join(names[int(i)] for i in several)}"


def _value(record: Record, path: str) -> Any:
    """A feature's value; None also where this data set, unlike that of training, does not have it."""
    try:
        return feature(record, path)
    except DataError:
        return None
