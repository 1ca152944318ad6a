"""Runs as processes of their own, several at a time."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import threading
from types import FrameType, TracebackType

from absl import logging

from mmjax import child_process
from mmjax.errors import Preempted
from mmjax.reproduce.experiment import Row

_PREEMPTED = Preempted.exit_code


class Children:
    """Starts runs, and passes SIGTERM on to them, which makes them save.

    Use it in a `with` statement of the main thread; `train` may be called from several threads.
    """

    def __init__(self):
        self._processes: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def __enter__(self) -> Children:
        self._before = signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stop()
        signal.signal(signal.SIGTERM, self._before)

    def train(self, row: Row, seed: int, workdir: pathlib.Path, cache: pathlib.Path) -> str | None:
        """Trains one run; its output goes to `<workdir>.log`.

        Args:
          row, seed: which.
          workdir: the run's directory.
          cache: folder of JAX's compilation cache.

        Returns:
          What went wrong, in one line; None where nothing did.

        Raises:
          Preempted: SIGTERM came, to this process or the run.
        """
        log = workdir.with_name(f"{workdir.name}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        caching = {
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_COMPILATION_CACHE_DIR": str(cache.absolute()),
        }
        unset = {name: value for name, value in caching.items() if name not in os.environ}
        with log.open("ab") as output:
            begin = output.tell()
            with self._lock:
                if self._stopping:
                    raise Preempted("stopped by SIGTERM; start again to go on")
                logging.info("%s, seed %d begins; see %s", row.name, seed, log)
                process = subprocess.Popen(
                    _command(row, seed, workdir),
                    env=child_process.environment(unset),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
                self._processes.add(process)
            code = process.wait()
        with self._lock:
            self._processes.discard(process)
        if code == _PREEMPTED or (code and self._stopping):
            self._stop()
            raise Preempted("stopped by SIGTERM; start again to go on")
        return what_went_wrong(log, begin, code) if code else None

    def _stop(self, number: int | None = None, frame: FrameType | None = None) -> None:
        self._stopping = True
        for process in list(self._processes):
            process.terminate()


def _command(row: Row, seed: int, workdir: pathlib.Path) -> list[str]:
    return child_process.command(*row.arguments(seed), f"--workdir={workdir.absolute()}")


def what_went_wrong(log: pathlib.Path, begin: int, code: int) -> str:
    """One line about a process that has failed.

    Args:
      log: what it has written, and others before it.
      begin: where its part begins, in bytes.
      code: what it ended with; the negative number of the signal that killed it.
    """
    if code < 0:
        return f"was killed by signal {-code}"
    text = log.read_bytes()[begin:].decode(errors="replace")
    found = re.findall(r"^(?:error: )?(.*\S)", text, re.MULTILINE)
    ours = re.findall(r"^error: (.*\S)", text, re.MULTILINE)
    bugs = re.findall(r"^((?:\w+\.)*\w+(?:Error|Exception)\b.*)", text, re.MULTILINE)
    return [*["ended without a word"], *found[-1:], *bugs[-1:], *ours[-1:]][-1]
