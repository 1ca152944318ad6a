"""Batches of arrays from numbered records, read by worker processes.

Row r of step s is example `s * batch_size + r` of the order in `mmjax.data.order`; process p of P
reads rows `[p * batch_size / P, (p + 1) * batch_size / P)`. So the cursor of a run's data is one
number, the count of examples consumed, and neither the order nor an example's augmentation depends
on how many processes or workers there are.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from mmjax.components import suggestion
from mmjax.data.loading import eval_labels
from mmjax.data.order import Mixed, Shuffled, training_order
from mmjax.data.preprocessing import Example, Preprocessor, Spec
from mmjax.data.source import Source, feature
from mmjax.errors import ConfigError, DataError

# Longer than any run; grain wants a length.
_ENDLESS = 2**40


class TrainPipeline:
    """Endless shuffled batches.

    Args:
      source: the records; a `MixtureSource` is drawn from by its weights.
      data: the `data` section of a resolved config.
      batch_size: examples in a step, over all processes.
      seed: of the run.
      tokenizers: by name.
      process_index, process_count: which rows this process reads.

    Raises:
      ConfigError, DataError: for settings or data that cannot give batches.
    """

    def __init__(
        self,
        source: Source,
        data: Mapping[str, Any],
        *,
        batch_size: int,
        seed: int,
        tokenizers: Mapping[str, Any],
        process_index: int = 0,
        process_count: int = 1,
    ):
        if not len(source):
            raise DataError(f"{source.name}: has no records to train on")
        self._rows = _Rows(batch_size, process_index, process_count)
        self._num_workers = data["num_workers"]
        preprocessor = Preprocessor(data["streams"], data["labels"], tokenizers, train=True)
        preprocessor.spec = preprocessor.find_spec(source)
        order = training_order(source, seed)
        self._examples = _Examples(source, preprocessor, self._rows, seed, order)

    def spec(self) -> Spec:
        """Name in the batch -> (shape without the batch axis, name of the dtype)."""
        return dict(self._examples.preprocessor.spec)

    @property
    def examples_per_epoch(self) -> int:
        """Records of the source; of a mixture, of all its parts together."""
        return len(self._examples.source)

    def batches(self, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """This process's rows of steps `start_step`, `start_step + 1`, and so on without end.

        The iterator has `close()`, which ends its worker processes.
        """
        return _read(self._examples, start_step, _ENDLESS, self._num_workers)


class EvalPipeline:
    """Every record once, in order; the last batch is filled with rows whose 'example_mask' is False.

    Every process has the same number of batches.

    Args:
      source: the records.
      data: the `data` section of a resolved config.
      name: a key of `data.eval`, whose `streams` replace transforms, whose `drop` hides streams and which
        may have labels of its own; '' for the streams and labels as they are.
      batch_size: examples in a step, over all processes.
      tokenizers: by name.
      spec: of the training data, for streams that these records may lack altogether.
      seed: of transforms that draw at random here (degraded inputs).
      process_index, process_count: which rows this process reads.

    Raises:
      ConfigError, DataError: for settings or data that cannot give batches.
    """

    def __init__(
        self,
        source: Source,
        data: Mapping[str, Any],
        *,
        name: str = "",
        batch_size: int,
        tokenizers: Mapping[str, Any],
        spec: Mapping[str, Any] | None = None,
        seed: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ):
        self._rows = _Rows(batch_size, process_index, process_count)
        self._num_workers = data["num_workers"]
        streams, drop = eval_streams(data, name)
        labels = eval_labels(data, name)
        _check_own_labels(source, data, name)
        preprocessor = Preprocessor(streams, labels, tokenizers, train=False, drop=drop)
        preprocessor.spec = preprocessor.find_spec(source, fallback=spec)
        self._examples = _Examples(source, preprocessor, self._rows, seed)

    def spec(self) -> Spec:
        """Name in the batch -> (shape without the batch axis, name of the dtype)."""
        return dict(self._examples.preprocessor.spec)

    @property
    def num_batches(self) -> int:
        """Batches of the whole source."""
        return -(-len(self._examples.source) // self._rows.batch_size)

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """This process's rows of every batch; the iterator has `close()`."""
        return _read(self._examples, 0, self.num_batches, self._num_workers)


def eval_streams(data: Mapping[str, Any], name: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The streams with the transforms of an evaluation data set, and the streams it hides.

    Args:
      data: the `data` section of a resolved config.
      name: a key of `data.eval`; '' or 'train' for the streams as they are.
    """
    streams = {stream: dict(settings) for stream, settings in data["streams"].items()}
    if name in ("", "train") and name not in data["eval"]:
        return streams, []
    if name not in data["eval"]:
        raise ConfigError(f"data.eval has no '{name}'{suggestion(name, data['eval'])}")
    section = data["eval"][name]
    for stream, transforms in section["streams"].items():
        if stream not in streams:
            raise ConfigError(
                f"data.eval.{name}.streams.{stream}: is no stream{suggestion(stream, streams)}; "
                f"data.streams has: {', '.join(streams)}"
            )
        streams[stream]["eval"] = transforms
    return streams, list(section["drop"])


def _check_own_labels(source: Source, data: Mapping[str, Any], name: str) -> None:
    """Raises a `DataError` where an evaluation data set lacks a feature that its own labels name."""
    own = data["eval"][name]["labels"] if name in data["eval"] and len(source) else {}
    for label, path in own.items():
        try:
            feature(source[0], path)
        except DataError as error:
            raise DataError(f"data.eval.{name}.labels.{label}: {error}") from None


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Which examples of the global order one process reads."""

    batch_size: int
    process_index: int
    process_count: int

    def __post_init__(self):
        if self.batch_size <= 0 or self.batch_size % self.process_count:
            raise ConfigError(
                f"batch_size: got {self.batch_size}, expected a multiple of {self.process_count}, the number "
                "of processes"
            )

    @property
    def per_process(self) -> int:
        return self.batch_size // self.process_count

    def number(self, position: int) -> int:
        """The number of the example at a position in this process's own sequence of rows."""
        step, row = divmod(position, self.per_process)
        return step * self.batch_size + self.process_index * self.per_process + row


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Position in this process's rows -> example; sent to worker processes."""

    source: Source
    preprocessor: Preprocessor
    rows: _Rows
    seed: int
    order: Shuffled | Mixed | None = None  # none: the records in turn, once

    def __call__(self, position: int) -> Example:
        number = self.rows.number(int(position))
        if self.order is None and number >= len(self.source):
            return self.preprocessor.blank()
        index = number if self.order is None else self.order(number)
        record = self.source[index]
        try:
            return self.preprocessor(record, self.seed, number)
        except DataError as error:
            raise DataError(f"{self.source.name}, example {record['example_id']}: {error}") from error


def _read(examples: _Examples, first: int, stop: int, num_workers: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches `first` to `stop`, as grain's iterator."""
    size = examples.rows.per_process
    # Batches are made before workers share out the elements, so a batch is the same for any number.
    dataset = grain.MapDataset.range(first * size, stop * size).map(examples).batch(size)
    if num_workers:
        if not flags.FLAGS.is_parsed():  # grain's workers are sent its flags
            flags.FLAGS.mark_as_parsed()
        read = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        workers = grain.MultiprocessingOptions(num_workers=num_workers)
        return iter(dataset.to_iter_dataset(read).mp_prefetch(workers, _ignore_stop_signals))
    threads = min(4, os.cpu_count() or 1)
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    return iter(dataset.to_iter_dataset(read))


def _ignore_stop_signals(worker_index: int, worker_count: int) -> None:
    """A cluster sends SIGTERM, and a terminal SIGINT, to all processes of a run.

    It is the main process that answers: it finishes its step, which may need a batch from here, saves,
    and then ends its workers.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
