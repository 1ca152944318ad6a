"""SIGTERM as a request that the loop answers between two steps."""

from __future__ import annotations

import signal

import jax
from jax.experimental import multihost_utils

from mmjax.errors import Preempted


class StopRequest:
    """Whether the run is to stop after a step, since SIGTERM has come to any of its processes.

    One process handles the signal itself, inside the context; the old handler returns after it, and gets
    the signal then, where it is a function and the run ended in another way than by `Preempted`: at its
    last step, or by an error. Of
    several processes, JAX's runtime handles it from `jax.distributed.initialize` on: the process that
    gets it tells the others, and all agree on the first step that none of them has begun
    (`multihost_utils.reached_preemption_sync_point`).
    """

    def __init__(self) -> None:
        self._requested = False
        self._alone = jax.process_count() == 1

    def __enter__(self) -> StopRequest:
        if self._alone:
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exception) -> None:
        if self._alone:
            signal.signal(signal.SIGTERM, self._previous)
            answered = isinstance(exception[1], Preempted)
            if self._requested and not answered and callable(self._previous):
                self._previous(signal.SIGTERM, None)

    def at(self, step: int) -> bool:
        """Whether to stop after `step`; every process asks at every step."""
        return self._requested if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def _note(self, signum, frame) -> None:
        self._requested = True
