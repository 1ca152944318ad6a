"""What the examples a run was evaluated on look like and say, from the prepared data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from mmjax import components
from mmjax.data.loading import data_dir
from mmjax.data.source import Record, Source, feature
from mmjax.errors import MmjaxError


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
        return ", ".join(self._classes(self._sources[data], record)) if record is not None else ""

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
        """The values of all features that streams of a kind read from a record."""
        for name, stream in self._config["model"]["streams"].items():
            if stream["kind"] == kind and record is not None:
                yield from (
                    feature(record, path) for path in self._config["data"]["streams"][name]["features"]
                )

    def _classes(self, source: Source, record: Record) -> Iterator[str]:
        for label, path in self._config["data"]["labels"].items():
            names = source.class_names.get(path)
            value = None if names is None else feature(record, path)
            if value is None:
                continue
            several = np.flatnonzero(value) if isinstance(value, np.ndarray) else [value]  # multi-hot, or one
            if len(several):
                yield f"{label}: {', '.join(names[int(i)] for i in several)}"
