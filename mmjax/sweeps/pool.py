"""The workers on this machine: processes that are started, watched, and stopped together."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

from absl import logging

from mmjax import child_process
from mmjax.errors import ConfigError, MmjaxError, Preempted
from mmjax.sweeps import results
from mmjax.sweeps.live import Live
from mmjax.sweeps.study import Study

STORAGE = "MMJAX_SWEEP_STORAGE"  # variable with the storage's address, since a command line is read by all
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_SAVE = 300.0


class Pool:
    """Workers of a study.

    Args:
      study: whose trials they run.
      address: of its storage.
      count: how many.
    """

    def __init__(self, study: Study, address: str, count: int):
        self._study, self._address = study, address
        self._devices = share_devices(count, os.environ)
        self._processes: dict[int, subprocess.Popen] = {}
        self._restarts = count * (1 + study.settings.retries)

    def run(self) -> None:
        """Returns when all trials are finished. A worker that was killed is replaced.

        Raises:
          Preempted: SIGTERM came, and all workers have saved.
          KeyboardInterrupt: the same, by Ctrl-C.
          MmjaxError: the workers are gone, and trials are left.
        """
        live = Live(self._study.settings)
        with _sigterm(), contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            for index in range(len(self._devices)):
                self._start(index)
            while True:
                left = self._study.unfinished()
                self._watch(replace=bool(left))
                live.show(results.collect(self._study, log=False))
                if not self._processes:
                    break
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        if left := self._study.unfinished():
            raise MmjaxError(
                f"all workers have ended, and {len(left)} trials are left; see their logs in "
                f"{self._study.directory / 'workers'}"
            )

    def _start(self, index: int) -> None:
        log = self._study.directory / "workers" / f"{index}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as file:
            self._processes[index] = subprocess.Popen(
                worker_command(self._study.directory, os.getpid()),
                env=child_process.environment({STORAGE: self._address} | self._devices[index]),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C comes here, and the workers are asked to save
            )

    def _watch(self, *, replace: bool) -> None:
        for index, process in list(self._processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self._processes[index]
            log = self._study.directory / "workers" / f"{index}.log"
            if code < 0 and replace and self._restarts > 0:
                self._restarts -= 1
                logging.warning("worker %d was killed (signal %d); starting another", index, -code)
                self._start(index)
            elif code not in (0, Preempted.exit_code):
                logging.error("worker %d ended with %d; see %s", index, code, log)

    def _stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        end = time.monotonic() + _SECONDS_TO_SAVE
        for index, process in self._processes.items():
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                logging.error("worker %d (process %d) has not ended; it is left alone", index, process.pid)


def worker_command(directory: pathlib.Path, parent: int) -> list[str]:
    """What starts a worker that ends with process `parent`."""
    return child_process.command("sweep", "--worker", f"--workdir={directory}", f"--parent={parent}")


def share_devices(count: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """For each of `count` workers, the variables that give it its part of this machine's accelerators.

    GPUs are dealt out whole, as long as there is one for each; else several workers share one, and its
    memory. Without GPUs the workers share the CPUs.

    Raises:
      ConfigError: several workers were to share a TPU, which belongs to one process.
    """
    if environment.get("JAX_PLATFORMS", "") == "cpu":
        return [{} for _ in range(count)]
    if count > 1 and _has_tpu(environment):
        raise ConfigError(f"--workers={count}: the TPU of a machine belongs to one process; use --workers=1")
    gpus = _gpus(environment)
    if not gpus:
        return [{} for _ in range(count)]
    if count <= len(gpus):
        return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[i::count])} for i in range(count)]
    share = f"{0.9 / -(-count // len(gpus)):.3f}"
    return [
        {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)], "XLA_PYTHON_CLIENT_MEM_FRACTION": share}
        for i in range(count)
    ]


def _has_tpu(environment: Mapping[str, str]) -> bool:
    """As launch.sh finds it."""
    if environment.get("MMJAX_ACCELERATOR"):
        return environment["MMJAX_ACCELERATOR"] == "tpu"
    named = environment.get("TPU_NAME") or environment.get("TPU_WORKER_ID")
    return pathlib.Path("/dev/accel0").exists() or (pathlib.Path("/dev/vfio").is_dir() and bool(named))


def _gpus(environment: Mapping[str, str]) -> Sequence[str]:
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True)
    except OSError:
        return []
    return done.stdout.split() if done.returncode == 0 else []


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """Inside, SIGTERM raises `Preempted`."""

    def stop(signum, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Preempted("stopped by SIGTERM, and the workers have saved; start again to go on")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
