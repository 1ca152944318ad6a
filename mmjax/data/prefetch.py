"""Batches of the host as arrays on the devices, made ready ahead of their use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding


class Prefetcher(Iterator[dict[str, jax.Array]]):
    """Reads batches in a background thread and keeps some of them on the devices.

    An exception in the thread is raised by `next` after the batches before it. Use it in a `with`
    statement, or call `close()`: it ends the thread and closes the iterator of host batches.

    Args:
      batches: this process's rows of each batch, name -> array `[rows, ...]`.
      sharding: how each array `[B, ...]` lies on the devices of all processes; only its first axis is
        split.
      size: batches kept ready, 1 or more.
    """

    def __init__(self, batches: Iterator[Mapping[str, np.ndarray]], sharding: Sharding, size: int = 2):
        self._batches, self._sharding = batches, sharding
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=max(1, size))
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> dict[str, jax.Array]:
        if self._ended:
            raise StopIteration
        batch, error = self._ready.get()
        if error is not None:
            self._ended = True
            raise error
        return batch

    def close(self) -> None:
        """Ends the thread; what was ready is let go. Safe to call again."""
        self._ended = True
        self._stop.set()
        while self._thread.is_alive():
            self._drain()  # the thread may wait for room
            self._thread.join(timeout=0.05)
        self._drain()
        if hasattr(self._batches, "close"):
            self._batches.close()

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self):
        try:
            while not self._stop.is_set():
                # StopIteration of a finished iterator goes to the consumer like any other exception.
                self._put((place(next(self._batches), self._sharding), None))
        except BaseException as error:  # noqa: B902, BLE001
            self._put((None, error))

    def _put(self, item):
        while not self._stop.is_set():
            try:
                return self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def _drain(self):
        try:
            while True:
                self._ready.get_nowait()
        except queue.Empty:
            pass


def prefetch(batches: Iterator[Mapping[str, np.ndarray]], sharding: Sharding, size: int = 2) -> Prefetcher:
    """Keeps `size` batches ready on the devices, see `Prefetcher`."""
    return Prefetcher(batches, sharding, size)


def place(batch: Mapping[str, np.ndarray], sharding: Sharding) -> dict[str, jax.Array]:
    """This process's rows of a batch as global arrays `[B, ...]`.

    Args:
      batch: name -> array `[rows, ...]`.
      sharding: splits the first axis only.
    """
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(array))
        for name, array in batch.items()
    }
