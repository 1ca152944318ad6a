"""How fast a run is: time, where it went, and the share of the devices' peak that the model used."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from mmjax.parallel import chips

_ENOUGH_SECONDS = 0.05  # a product that takes this long hides what calling it costs
_LARGEST = 2**14  # rows and columns of the matrices: 1 GiB in float32
_REPEATS = 3


def peak_flops(devices: Sequence[jax.Device], dtype: str) -> float:
    """Operations per second that all `devices` together could do in products of matrices.

    Where a chip's figures are published (`mmjax.parallel.chips`), those for bfloat16, whatever the run
    computes in. Else what one device reaches in a product of matrices of `dtype`, measured once in a
    process. CPU devices of one process share its cores, so they count once.

    Args:
      devices: of all processes, of one kind.
      dtype: of the run.
    """
    chip = chips.find(devices[0].device_kind)
    if chip is not None:
        return chip.peak_flops * len(devices)
    shared = devices[0].platform == "cpu"
    count = len({device.process_index for device in devices}) if shared else len(devices)
    return _measured_peak(dtype) * count


@functools.cache
def _measured_peak(dtype: str) -> float:
    product = jax.jit(jnp.matmul)
    rates, size, seconds = [], 512, 0.0
    while seconds < _ENOUGH_SECONDS and size <= _LARGEST:
        matrix = jax.device_put(jnp.ones((size, size), dtype), jax.local_devices()[0])
        try:
            product(matrix, matrix).block_until_ready()
        except jax.errors.JaxRuntimeError:  # no memory is left for larger ones
            if rates:
                break
            raise
        seconds = min(_seconds_of(product, matrix) for _ in range(_REPEATS))
        rates.append(2 * size**3 / seconds)
        size *= 2
    return max(rates)


def _seconds_of(product, matrix):
    began = time.perf_counter()
    product(matrix, matrix).block_until_ready()
    return time.perf_counter() - began


class Clock:
    """Wall time of a run over all its processes, the rate at which it trains, and what it waited for.

    Training time is that of the loop (`training`) without evaluation (`pause`).

    Args:
      before: `state()` at the checkpoint that this process goes on from; {} at the beginning.
      step: where this process begins.
      batch_size: examples in a step.
      model_flops: of a step, see `mmjax.training.model_flops`.
      peak_flops: per second, of all devices.
    """

    def __init__(
        self, before: dict[str, float], step: int, batch_size: int, model_flops: int, peak_flops: float
    ):
        self._before = {"seconds": 0.0, "training_seconds": 0.0} | before
        # What devices could have done until now; a run may go on on others.
        earlier = self._before["training_seconds"] * peak_flops
        self._available = before.get("available_flops", earlier) - earlier
        self._batch_size, self._model_flops, self._peak_flops = batch_size, model_flops, peak_flops
        self._began = time.monotonic()
        self._loop_began: float | None = None
        self._trained = self._before["training_seconds"]  # up to the loop, and after it
        self._paused = 0.0
        self._waited = {name: before.get(name, 0.0) for name in _WAITS}
        self._logged = (step, self._trained, self._waited["data_seconds"])

    def state(self) -> dict[str, float]:
        """To go into a checkpoint."""
        times = {"seconds": self.seconds(), "training_seconds": self._training_seconds()}
        available = self._available + times["training_seconds"] * self._peak_flops
        return times | self._waited | {"available_flops": available}

    def seconds(self) -> float:
        """Wall time of the run up to now."""
        return self._before["seconds"] + time.monotonic() - self._began

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Around the loop."""
        self._loop_began = time.monotonic()
        yield
        self._trained = self._training_seconds()
        self._loop_began = None

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves out of training time what happens inside."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - began

    def waiting_for_data(self) -> contextlib.AbstractContextManager[None]:
        """Counts what happens inside as waiting for the next batch."""
        return self._waiting("data_seconds")

    def saving(self) -> contextlib.AbstractContextManager[None]:
        """Counts what happens inside as waiting for a checkpoint."""
        return self._waiting("checkpoint_seconds")

    def facts(self, step: int) -> dict[str, float]:
        """For a line of the log: examples seen, seconds, and since the line before it the rate, the model
        FLOPs utilisation and the share of the time that the loop waited for data.
        """
        training, data = self._training_seconds(), self._waited["data_seconds"]
        logged_step, logged_training, logged_data = self._logged
        self._logged = (step, training, data)
        passed = max(training - logged_training, 1e-9)
        return {
            "examples": step * self._batch_size,
            "seconds": self.seconds(),
            "train/examples_per_second": (step - logged_step) * self._batch_size / passed,
            "train/mfu": self._mfu(step - logged_step, passed),
            "train/waiting_for_data": (data - logged_data) / passed,
        }

    def summary(self, steps: int) -> dict[str, float]:
        """For `result.json`: the whole run of `steps`; one of none has no rates."""
        training = max(self._training_seconds(), 1e-9)
        rates = {
            "examples_per_second": steps * self._batch_size / training,
            "mfu": steps * self._model_flops / (self._available + training * self._peak_flops),
        }
        return {
            "wall_seconds": self.seconds(),
            "training_seconds": training,
            "model_flops_per_step": self._model_flops,
            "peak_flops_per_second": self._peak_flops,
            **(rates if steps else {}),
            **self._waited,
        }

    @contextlib.contextmanager
    def _waiting(self, name):
        began = time.monotonic()
        try:
            yield
        finally:
            self._waited[name] += time.monotonic() - began

    def _mfu(self, steps, seconds):
        """Model FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B)."""
        return steps * self._model_flops / seconds / self._peak_flops

    def _training_seconds(self) -> float:
        if self._loop_began is None:
            return self._trained
        return self._trained + time.monotonic() - self._loop_began - self._paused


_WAITS = ("data_seconds", "checkpoint_seconds")
