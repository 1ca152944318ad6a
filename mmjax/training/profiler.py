"""A trace of some training steps by JAX's profiler, for Perfetto, TensorBoard or XProf."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import jax
from absl import logging

FOLDER = "profile"


class Profiler:
    """Traces `steps` training steps, from the second one that this process makes.

    The first step is left out since buffers and caches are made in it. A folder named after the time is
    written to `<workdir>/profile`, so that traces of other starts stay. A run that ends early has a
    trace of what it did.

    Args:
      workdir: the run's directory.
      steps: how many; 0 traces none.
    """

    def __init__(self, workdir: pathlib.Path, steps: int):
        self._folder, self._steps = workdir / FOLDER, steps
        self._made = 0
        self._tracing = False

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *exception) -> None:
        self._stop()

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around the call of a step: `number` names it in the trace."""
        if self._steps and self._made == 1:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        self._made += 1

    def after(self, finished: object) -> None:
        """After a step: ends the trace where it was the last one.

        Args:
          finished: arrays of the step, which are waited for before the trace ends.
        """
        if self._tracing and self._made > self._steps:
            jax.block_until_ready(finished)
            self._stop()

    def _stop(self):
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            logging.info("the profile of %d steps is in %s", self._made - 1, self._folder)
