"""The images of the examples a run was evaluated on, from the prepared data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from mmjax import components
from mmjax.data.loading import data_dir
from mmjax.data.source import Source, feature
from mmjax.errors import MmjaxError


class RecordImages:
    """`(data set's name, example_id) -> its image or None`; a data set is opened when first asked for.

    Data that is not prepared on this machine is told once, in the log, and has no images.

    Args:
      config: the resolved config of the run.
    """

    def __init__(self, config: Mapping[str, Any]):
        self._config = config
        self._sources: dict[str, Source | None] = {}
        self._positions: dict[str, dict[int, int]] = {}

    def __call__(self, data: str, example_id: int) -> bytes | np.ndarray | None:
        if data not in self._sources:
            self._sources[data] = self._open(data)
        source = self._sources[data]
        if source is None:
            return None
        record = self._find(data, source, int(example_id))
        return None if record is None else self._image(record)

    def _open(self, data):
        try:
            section = self._config["data"]
            spec = section["train"] if data == "train" else section["eval"][data]["dataset"]
            return components.build("datasets", spec).open(data_dir(section))
        except (MmjaxError, KeyError) as error:
            logging.info("report: no images of the data set '%s': %s", data, error)
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

    def _image(self, record):
        """The first feature of an image stream that holds bytes or an array."""
        for name, stream in self._config["model"]["streams"].items():
            if stream["kind"] != "image":
                continue
            for path in self._config["data"]["streams"][name]["features"]:
                value = feature(record, path)
                if isinstance(value, bytes | np.ndarray):
                    return value
        return None
