"""Checkpoints: the whole training state, saved together, verified before it is used.

    <directory>/<step>/params, model_state, ema, training/   Orbax (OCDBT)
                       checkpoint.json                       step, data cursor, metrics
                       digests.json                          written last; without it, incomplete

A save returns when the arrays are on the host; a thread writes, hashes and rotates. On several
processes the directory must be on storage that all of them see: each writes its shards, and when
all have finished, process 0 hashes the files and does what else is to be done once.
"""

from __future__ import annotations

import math
import pathlib
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from mmjax.errors import ConfigError, DataError
from mmjax.files import write_json
from mmjax.layers.stacking import stack_blocks, unstack_blocks
from mmjax.parallel.placement import named_leaves, path_name
from mmjax.training import checkpoint_files as files
from mmjax.training.state import TrainState
from mmjax.training.trees import pick

_ITEMS = ("params", "model_state", "ema", "training")
_NONE, _ALL_DAMAGED = -1, -2  # instead of a step, between processes


class Checkpoints:
    """The checkpoints of one run that is training; evaluation reads them by `restore_params`.

    Args:
      directory: made at the first save; other files in it are left alone.
      keep: newest checkpoints kept.
      best_metric: the checkpoint with the best value of this metric is kept besides.
      best_mode: whether the best is the largest or the smallest.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        *,
        keep: int = 2,
        best_metric: str | None = None,
        best_mode: Literal["max", "min"] = "max",
    ):
        if keep < 1:
            raise ConfigError(f"checkpoint.keep: got {keep}, expected 1 or more")
        self.directory = pathlib.Path(directory).absolute()
        self._keep, self._best_metric, self._best_mode = keep, best_metric, best_mode
        self._checkpointer = _checkpointer()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._at: int | None = None  # step of the state that was last saved or restored here

    def save(
        self,
        step: int,
        state: TrainState,
        data_state: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Begins to save; waits first for a save that still runs. All processes call it together.

        Saving again the step that was just saved or restored does nothing.

        Args:
          step: names the checkpoint.
          state: may be donated as soon as this returns.
          data_state: JSON-able, where the data goes on.
          metrics: of this step, by which the best is chosen.

        Raises:
          DataError: a checkpoint of that step is already there, from elsewhere.
          Exception: what went wrong in the previous save.
        """
        self.wait()
        if step == self._at:
            return
        path = self.directory / str(step)
        if files.is_complete(path):
            raise DataError(f"{path}: there already is a checkpoint of this step; move it away")
        if jax.process_index() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            if path.exists():
                files.set_aside(path)
        self._checkpointer.save(
            path,
            ocp.args.Composite(**{k: ocp.args.StandardSave(tree) for k, tree in _items(state).items()}),
        )
        self._at = step
        record = {
            "step": step,
            "data_state": dict(data_state),
            "metrics": {name: float(x) for name, x in (metrics or {}).items() if math.isfinite(x)},
            "best": {"metric": self._best_metric, "mode": self._best_mode},
        }
        self._thread = threading.Thread(target=self._finish, args=(path, record), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Until the last save is complete; raises what went wrong in it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Waits, and releases Orbax's threads."""
        try:
            self.wait()
        finally:
            self._checkpointer.close()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return files.complete_steps(self.directory)

    def best_step(self) -> int | None:
        """The complete checkpoint with the best metric; None without a metric, or a value of it."""
        return files.best_step(self.directory, self._best_metric, self._best_mode)

    def restore_latest(self, abstract: TrainState) -> tuple[int, TrainState, dict[str, Any]] | None:
        """The newest checkpoint that is whole.

        What is newer and damaged is reported and renamed to `<step>.damaged`, so that the run can
        come to that step again.

        Args:
          abstract: shapes, dtypes and shardings, see `mmjax.training.state.abstract_state`; the mesh
            need not be the one it was saved on.

        Returns:
          (step, state, data_state), or None where nothing was ever completely saved.

        Raises:
          DataError: all are damaged (they stay where they are), or the state is of another shape.
        """
        self.wait()
        step = _on_process_0(self._choose)
        if step == _ALL_DAMAGED:
            raise DataError(
                f"{self.directory}: every checkpoint is damaged; bring back a copy of one, or start again in "
                "another directory"
            )
        return None if step == _NONE else self._restore(step, abstract)

    def restore(self, step: int, abstract: TrainState) -> tuple[int, TrainState, dict[str, Any]]:
        """A given checkpoint, see `restore_latest`; `DataError` where it is missing or damaged."""
        self.wait()
        files.verify(self.directory, step)
        return self._restore(step, abstract)

    def _restore(self, step, abstract):
        path = self.directory / str(step)
        wanted = _items(abstract)
        if "ema" in wanted and self._averages_all(path, abstract):
            wanted["ema"] = abstract.params
        _check_fits(self._checkpointer, path, wanted)
        args = ocp.args.Composite(**{name: ocp.args.StandardRestore(tree) for name, tree in wanted.items()})
        found = self._checkpointer.restore(path, args)
        items = {name: found[name] if name in wanted else tree for name, tree in _all_items(abstract).items()}
        if "ema" in wanted:
            items["ema"] = pick(items["ema"], abstract.ema)
        self._at = step
        data_state = files.read_record(path)["data_state"]
        return step, TrainState(**items.pop("training"), **items), data_state

    def _averages_all(self, path, abstract):
        """Whether more is averaged than in `abstract`: all, as in runs that began when it always was."""
        saved = self._checkpointer.metadata(path).item_metadata.get("ema")
        trees = (saved.tree if saved else {}, abstract.params, abstract.ema)
        there, every, here = ({name for name, _ in named_leaves(tree)} for tree in trees)
        return there == every != here

    def _finish(self, path, record):
        try:
            self._checkpointer.wait_until_finished()  # on several processes: until all have written
            if jax.process_index() == 0:
                write_json(path / files.RECORD, record)
                files.write_digests(path)
                self._rotate()
        except BaseException as error:  # raised again by `wait`, in the caller's thread
            self._error = error

    def _rotate(self):
        steps = self.steps()
        kept = {*steps[-self._keep :], self.best_step()}
        for step in steps:
            if step not in kept:
                path = self.directory / str(step)
                # Renamed first: a half-deleted checkpoint must not look like a damaged one.
                shutil.rmtree(path.rename(path.with_name(f"{step}.deleting")))

    def _choose(self) -> int:
        step, unusable = files.newest_whole(self.directory)
        if step is None:
            return _ALL_DAMAGED if any(files.is_complete(path) for path in unusable) else _NONE
        for path in unusable:
            files.set_aside(path)
        return step

    def _remove_leftovers(self):
        """What a killed process was writing or deleting."""
        for path in self.directory.iterdir():
            if re.fullmatch(r"\d+\.(orbax-checkpoint-tmp.*|deleting)", path.name):
                logging.warning("removing %s, left by a process that was killed", path)
                shutil.rmtree(path)


def restore_params(
    directory: str | pathlib.Path, step: int | None = None, *, best: bool = True
) -> tuple[int, dict[str, Any]]:
    """Parameters of a run, without what only training needs. Changes nothing in the directory.

    One process of several may call it without the others.

    Args:
      directory: a run's checkpoints.
      step: which one; None takes the best where a metric chose one and `best`, else the newest that
        is whole.
      best: see `step`.

    Returns:
      (step, {'params': ..., 'model_state': ..., 'ema': ... or None}), numpy arrays.

    Raises:
      DataError: there is none, or the one asked for is damaged.
    """
    directory = pathlib.Path(directory).absolute()
    if step is None and best:
        step = files.recorded_best(directory)
    if step is None:
        step, _ = files.newest_whole(directory)
        if step is None:
            raise DataError(f"{directory}: holds no checkpoint that is whole")
    else:
        files.verify(directory, step)
    path = directory / str(step)
    with _checkpointer(alone=True) as checkpointer:
        saved = checkpointer.metadata(path).item_metadata
        # Numpy placeholders make Orbax return numpy arrays.
        wanted = {
            name: jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved[name].tree)
            for name in ("params", "model_state", "ema")
            if saved.get(name) is not None
        }
        args = ocp.args.Composite(**{name: ocp.args.StandardRestore(tree) for name, tree in wanted.items()})
        found = checkpointer.restore(path, args)
    empty = {"model_state": {}, "ema": None}
    return step, empty | {name: found[name] for name in wanted}


class MergeReport(NamedTuple):
    """Paths of parameters: taken from the source, left as they were, and in the source but not used."""

    taken: list[str]
    fresh: list[str]
    unused: list[str]


def merge_params(
    target: Any, source: Any, include: Sequence[str] = (".*",), exclude: Sequence[str] = ()
) -> tuple[Any, MergeReport]:
    """Parameters of `target`, with those of `source` that have the same path.

    Args:
      target: fresh parameters, wherever they live.
      source: parameters of another run, numpy arrays.
      include, exclude: regular expressions of whole paths; what is not included, and what is
        excluded, stays as it is in `target`.

    Returns:
      (a tree like `target`, with numpy arrays where they are taken; what came from where).

    Raises:
      ConfigError: on another shape under the same path, or where nothing is taken.
    """
    merged, report = _merge(target, source, include, exclude)
    if not report.taken:
        there = [name for name, _ in named_leaves(source)]
        raise ConfigError(
            f"init: no parameter is taken; include {list(include)} and exclude {list(exclude)} leave none of "
            f"those that both models have (the source has {', '.join(sorted(there)[:3])}, ...)"
        )
    return merged, report


def merge_model_state(
    target: Any, source: Any, include: Sequence[str] = (".*",), exclude: Sequence[str] = ()
) -> Any:
    """As `merge_params`, for the model's other collections (BatchNorm statistics); taking none is fine.

    Args:
      target, source: by collection.
      include, exclude: match the path within the collection, so that the pattern that takes a
        module's parameters takes its statistics too.

    Raises:
      ConfigError: on another shape under the same path.
    """
    return {
        collection: _merge(tree, source.get(collection, {}), include, exclude)[0]
        for collection, tree in target.items()
    }


def _merge(target, source, include, exclude):
    given = dict(named_leaves(_stacked_alike(target, source)))
    taken, fresh = [], []

    def merge(path, leaf):
        name = path_name(path)
        wanted = any(re.fullmatch(p, name) for p in include) and not any(
            re.fullmatch(p, name) for p in exclude
        )
        if not wanted or name not in given:
            fresh.append(name)
            return leaf
        if given[name].shape != leaf.shape:
            raise ConfigError(
                f"init: {name} is {given[name].shape} in the source and {leaf.shape} in this model; "
                "change the model, or add the path to init.exclude"
            )
        taken.append(name)
        return given[name].astype(leaf.dtype)

    merged = jax.tree.map_with_path(merge, target)
    return merged, MergeReport(taken, fresh, sorted(set(given) - set(taken)))


def _stacked_alike(target, source):
    """`source` with the layers of each part stacked, or not, as those of `target` are."""

    def scanned(part):
        return any("/blocks/" in f"/{name}" for name, _ in named_leaves(part))

    return {
        name: (stack_blocks if name in target and scanned(target[name]) else unstack_blocks)(part)
        if isinstance(part, Mapping)
        else part
        for name, part in source.items()
    }


def _checkpointer(alone: bool = False) -> ocp.AsyncCheckpointer:
    """Of all processes, or `alone` of this one, which then waits for no other."""
    me = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=me if alone else 0, active_processes={me} if alone else None
    )
    handlers = {name: ocp.StandardCheckpointHandler(multiprocessing_options=options) for name in _ITEMS}
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=options), **handlers
    )
    return ocp.AsyncCheckpointer(handler, multiprocessing_options=options)


def _all_items(state: TrainState) -> dict[str, Any]:
    """Parts that can be restored alone."""
    training = {"step": state.step, "opt_state": state.opt_state, "key": state.key}
    items = (state.params, state.model_state, state.ema, training)
    return dict(zip(_ITEMS, items, strict=True))


def _items(state: TrainState) -> dict[str, Any]:
    """The parts that hold an array; Orbax cannot save the others."""
    return {name: tree for name, tree in _all_items(state).items() if jax.tree.leaves(tree)}


def _check_fits(checkpointer: ocp.AsyncCheckpointer, path: pathlib.Path, wanted: Mapping[str, Any]) -> None:
    """Compares names and shapes before any array is read."""
    saved = checkpointer.metadata(path).item_metadata
    there = {
        f"{n}/{name}": x.shape for n in _ITEMS if saved.get(n) for name, x in named_leaves(saved[n].tree)
    }
    here = {f"{n}/{name}": x.shape for n, tree in wanted.items() for name, x in named_leaves(tree)}
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise DataError(
                f"{path}: does not fit this model and optimizer: {name} is {there.get(name, 'absent')} there "
                f"and {here.get(name, 'absent')} here; use the config it was saved with"
            )


def _on_process_0(choose: Callable[[], int]) -> int:
    """What process 0 chooses, on every process."""
    if jax.process_count() == 1:
        return choose()
    mine = choose() if jax.process_index() == 0 else 0
    return int(multihost_utils.broadcast_one_to_all(np.int32(mine)))
