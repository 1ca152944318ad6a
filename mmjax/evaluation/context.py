"""One round of evaluation: what evaluators ask for, computed once and shared by all of them."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from mmjax.components import suggestion
from mmjax.data.prepared import default_dir
from mmjax.data.source import Source, feature
from mmjax.errors import ConfigError, DataError, NonFiniteError
from mmjax.files import write_text

ALWAYS = ("example_id", "example_mask", "example_row")  # returned by every forward pass
_LOG_SECONDS = 10.0


class Batches(Protocol):
    """What is needed of a pipeline, such as `mmjax.data.pipeline.EvalPipeline`."""

    def batches(self) -> Iterator[Mapping[str, np.ndarray]]:
        """This process's rows of every batch, in the order of the records.

        The last batches are padded, so that every process has as many, with 'example_mask' False on
        the padding. The iterator has `close()`.
        """


class EvalContext:
    """What evaluators see; made anew for each round, so that nothing it keeps can be out of date.

    Every process makes one, with the same arguments, and runs the same evaluators: each of them ends
    up with all arrays and all numbers. Only the first process writes artifacts.

    Args:
      forward: computes the outputs of a batch: gets this process's rows as NumPy arrays (the
        pipeline's, and 'example_row'), returns outputs and batch entries by name as global arrays
        `[B, ...]`. It must return those of `names_to_collect(...)` that the data set has.
      pipelines: data set name -> its batches.
      sources: data set name -> its records.
      workdir: the run's directory; artifacts go to `workdir/artifacts`.
      step: of the parameters that are evaluated.
      class_names: label in the batch -> names of its classes.
      encode: (stream, texts, output) -> `[n, D]`, the output of the model for texts given in place
        of what that stream reads from a record; None where the model encodes no text.
      part: (index, count), which part of every batch the pipelines of this process read; by default
        that of the process.
      data_dir: where prepared data lives; by default the place that no config names.
    """

    def __init__(
        self,
        *,
        forward: Callable[[dict[str, np.ndarray]], Mapping[str, jax.Array]],
        pipelines: Mapping[str, Batches],
        sources: Mapping[str, Source],
        workdir: pathlib.Path,
        step: int = 0,
        class_names: Mapping[str, Sequence[str]] | None = None,
        encode: Callable[[str, Sequence[str], str], np.ndarray] | None = None,
        part: tuple[int, int] | None = None,
        data_dir: pathlib.Path | None = None,
    ):
        self.step, self.data_dir = step, data_dir or default_dir()
        self._forward = forward
        self._part = part or (jax.process_index(), jax.process_count())
        self._pipelines = pipelines
        self._sources = sources
        self._workdir = pathlib.Path(workdir)
        self._class_names = class_names or {}
        self._encode = encode
        self._expected: dict[str, set[str]] = {}
        self._collected: dict[str, dict[str, np.ndarray]] = {}
        self._encoded: dict[tuple[str, tuple[str, ...], str], np.ndarray] = {}

    def expect(self, needs: Mapping[str, Collection[str]]) -> None:
        """Adds to what `collect` will return: data set -> names.

        To be called for all evaluators of a round before the first one runs, so that one pass over
        a data set serves them all.
        """
        for data, names in needs.items():
            expected = self._expected.setdefault(data, set())
            if not set(names) <= expected:
                expected |= set(names)
                self._collected.pop(data, None)

    def collect(self, data: str, streams: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """The expected outputs and batch entries of a whole data set.

        Args:
          data: its name.
          streams: only rows that have all of these.

        Returns:
          Name -> `[n, ...]`, in the order of the data, without padding; floats as float32. Besides
          what was expected: 'example_id', 'example_row' (the record's position in the source), and
          '<entry>_mask' and '<entry>_present' of batch entries that have them.

        Raises:
          ConfigError: a data set or an entry that is not there, with the nearest name; or no example
            has all streams.
          NonFiniteError: an output holds NaN or infinity.
        """
        if data not in self._collected:
            self._collected[data] = self._run(data)
        columns = self._collected[data]
        keep = np.ones(len(columns["example_id"]), bool)
        for stream in streams:
            keep &= columns[f"{stream}_present"]
        if not keep.any():
            raise ConfigError(f"evals: no example of '{data}' has all of the streams: {', '.join(streams)}")
        return dict(columns) if keep.all() else {name: values[keep] for name, values in columns.items()}

    def records(self, data: str) -> Source:
        """The records of a data set."""
        return _known(self._sources, data)

    def texts(self, data: str, rows: Sequence[int] | np.ndarray, path: str) -> list[str]:
        """A text feature of some records.

        Args:
          data: name of the data set.
          rows: positions in its source, as in `collect(data)["example_row"]`.
          path: the feature, such as 'name' or 'names.de'. Several texts are joined, a missing one is
            empty.

        Raises:
          DataError: the feature is not there, or not text.
        """
        source, found = self.records(data), []
        for row in rows:
            value = feature(source[int(row)], path)
            parts = value if isinstance(value, list | tuple | np.ndarray) else [value]
            parts = [part for part in parts if part is not None]
            if not all(isinstance(part, str) for part in parts):
                raise DataError(
                    f"{source.name}: feature '{path}' of record {int(row)} holds {type(value).__name__}, "
                    "expected text"
                )
            found.append(" / ".join(parts))
        return found

    def class_names(self, label: str, classes: int | None = None) -> list[str]:
        """The names of the classes of a label.

        Args:
          label: in the batch.
          classes: how many names are wanted: where the data has none (or another number of them),
            they are '0', '1', and so on. None: those that there are.
        """
        names = list(self._class_names.get(label, ()))
        return names if classes in (None, len(names)) else [str(c) for c in range(classes)]

    def encode_texts(self, stream: str, texts: Sequence[str], output: str) -> np.ndarray:
        """The model's output for texts that are in no record; `[n, D]` float32.

        Raises:
          ConfigError: the model encodes no text.
        """
        key = (stream, tuple(texts), output)
        if key not in self._encoded:
            if self._encode is None:
                raise ConfigError(f"stream '{stream}': the model encodes no text, which this evaluator needs")
            self._encoded[key] = np.asarray(self._encode(stream, list(texts), output), np.float32)
        return self._encoded[key]

    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """Leaves something for the report in `artifacts/<name>.json`, '/' as '_'; the last round's stays.

        Args:
          name: such as 'classification/digit/confusion_matrix'.
          content: plain data with a 'kind' that the report knows; NaN is written as null.
        """
        if jax.process_index() != 0:
            return
        text = json.dumps(_plain({"step": self.step, **content}), ensure_ascii=False, allow_nan=False)
        write_text(self._workdir / "artifacts" / f"{name.replace('/', '_')}.json", text + "\n")

    def _run(self, data: str) -> dict[str, np.ndarray]:
        pipeline, parts, checked = _known(self._pipelines, data), [], set()
        progress = _Progress(data, len(self.records(data)))
        for batch, outputs in _one_ahead(self._forward_all(pipeline)):
            wanted = _wanted(self._expected.get(data, set()), outputs)
            # In one order on all processes: gathering is a collective operation.
            part = {name: _whole(outputs[name]) for name in sorted(wanted)}
            order = np.argsort(part["example_row"], kind="stable")
            keep = order[part["example_mask"][order]]
            parts.append({name: values[keep] for name, values in part.items()})
            checked = wanted - set(batch)  # what the model computed; a label may well be NaN
            progress.add(len(keep))
        if not parts:
            raise DataError(f"the data set '{data}' has no examples to evaluate on")
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for name in checked:
            _check_finite(columns[name], name, data, columns["example_id"])
        del columns["example_mask"]
        return {name: _float32(values) for name, values in columns.items()}

    def _forward_all(self, pipeline):
        """(batch of this process, outputs of the whole batch), with rows numbered over all processes."""
        start = 0
        with contextlib.closing(pipeline.batches()) as batches:
            for batch in batches:
                rows = len(batch["example_mask"])
                first = start + self._part[0] * rows
                batch = {**batch, "example_row": np.arange(first, first + rows, dtype=np.int32)}
                yield batch, self._forward(batch)
                start += self._part[1] * rows


def _known(data_sets: Mapping[str, Any], name: str) -> Any:
    if name not in data_sets:
        raise ConfigError(
            f"evals: there is no data set '{name}'{suggestion(name, data_sets)}; there are: "
            f"{', '.join(sorted(data_sets))}"
        )
    return data_sets[name]


def _one_ahead(items: Iterator) -> Iterator:
    """The items, each after the next has been asked for: the device works while the host gathers."""
    previous = next(items, None)
    for item in items:
        yield previous
        previous = item
    if previous is not None:
        yield previous


def _wanted(expected: set[str], known: Collection[str]) -> set[str]:
    wanted = expected | set(ALWAYS)
    for name in sorted(wanted):
        if name not in known:
            raise ConfigError(
                f"evals: '{name}' is neither an output of the model nor in the batch"
                f"{suggestion(name, known)}; there are: {', '.join(sorted(known))}"
            )
    return wanted | (companions(expected) & set(known))


def companions(names: Collection[str]) -> set[str]:
    """The entries that say which parts of these batch entries are real, where they exist."""
    return {f"{name}_{kind}" for name in names for kind in ("mask", "present")}


def _whole(array: jax.Array | np.ndarray) -> np.ndarray:
    """All rows of a global array, on every process."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def _float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if jax.numpy.issubdtype(values.dtype, np.floating) else values


def _check_finite(values, name, data, example_ids):
    if not jax.numpy.issubdtype(values.dtype, np.floating):
        return
    finite = np.isfinite(values.astype(np.float32)).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        raise NonFiniteError(
            f"evaluation on '{data}': the output '{name}' is not finite for {(~finite).sum()} of "
            f"{len(values)} examples (first: example_id {example_ids[~finite][0]}); evaluate an earlier "
            "checkpoint, or lower the learning rate"
        )


def _plain(value: Any) -> Any:
    """Nested data as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Progress:
    """Logs the rate and the time left, every few seconds."""

    def __init__(self, data: str, total: int):
        self._data, self._total, self._done = data, total, 0
        self._start = self._logged = time.monotonic()

    def add(self, examples: int) -> None:
        self._done += examples
        now = time.monotonic()
        if now - self._logged < _LOG_SECONDS:
            return
        self._logged = now
        rate = self._done / (now - self._start)
        left = (self._total - self._done) / rate if rate else float("nan")
        logging.info(
            "evaluation on '%s': %d of %d examples, %.0f/s, %.0f s left",
            self._data,
            self._done,
            self._total,
            rate,
            left,
        )
