"""The processes of one run, one for each host: found, joined, and ended together.

`connect` is the one place that calls `jax.distributed.initialize`. A run of one process initialises
nothing. What JAX detects by itself is described in `jax.distributed.initialize`,
https://docs.jax.dev/en/latest/multi_process.html.
"""

from __future__ import annotations

import glob
import importlib.util
import logging as standard_logging
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from absl import logging

from mmjax.errors import ConfigError, LostProcess

START_SECONDS = 300  # until all processes have come; hosts of a cluster do not start at once
HEARTBEAT_SECONDS = 60  # without a sign of life, after which a process counts as dead
_SHUTDOWN_SECONDS = 3600  # the other processes wait at the end while the first one writes the report
_LAST_WORDS_SECONDS = 5

# What the runtimes say when another process is gone.
_GONE = re.compile(
    r"Gloo .* failed|Connection (reset|closed|refused)|Broken pipe|Socket closed|heartbeat|"
    r"coordination service|NCCL .*(remote process|aborted)|tasks? (died|unhealthy)",
    re.IGNORECASE,
)


class Place(NamedTuple):
    """Which process of how many."""

    index: int
    count: int


class _Launcher(NamedTuple):
    """What a launcher says in its variables of the environment: numbers, or None where it does not."""

    name: str
    count: int | None
    index: int | None
    on_this_host: int | None


# Set once, by `connect`: JAX knows it too, but asking JAX starts its backends.
_place = Place(0, 1)


def place() -> Place:
    """This process's place among those that `connect` joined; (0, 1) where it joined none."""
    return _place


def is_first() -> bool:
    """Whether this process writes the run's reports and talks to the terminal."""
    return _place.index == 0


def connect(
    coordinator: str | None = None,
    count: int | None = None,
    index: int | None = None,
    *,
    saves_at_sigterm: bool = False,
) -> None:
    """Joins the processes of a run; to be called before anything uses a device.

    Flags that are not given come from the launcher: SLURM (`srun`), Open MPI (`mpirun`), or what JAX
    detects on TPU VMs and on GKE. Without flags and launcher, or where there is one process only,
    nothing is done. On the CPU, collectives go through gloo.

    Args:
      coordinator: HOST:PORT of process 0, reachable from all.
      count: of processes.
      index: of this process, from 0.
      saves_at_sigterm: JAX's runtime takes SIGTERM, which `mmjax.training.signals` then asks for; else
        the signal ends a process, as ever.

    Raises:
      ConfigError: flags that do not go together, or that the launcher does not complete.
    """
    launcher = _launcher(os.environ)
    if count is not None and count < 1:
        raise ConfigError(f"--processes={count}: expected 1 or more")
    if coordinator is not None and not re.fullmatch(r"[^\s:]+:\d{1,5}|\[[^\s\]]+\]:\d{1,5}", coordinator):
        raise ConfigError(f"--coordinator={coordinator}: expected HOST:PORT, such as 10.0.0.1:8476")
    if count == 1 and index in (None, 0):
        return
    given = coordinator is not None or count is not None or index is not None
    if given or launcher is not None:
        count = count if count is not None else launcher and launcher.count
        index = index if index is not None else launcher and launcher.index
        if count is None or index is None:
            raise ConfigError(
                "--coordinator, --processes and --process: give all three, since no launcher says the rest "
                "(./launch.sh train --coordinator=HOST:PORT --processes=N --process=I ...)"
            )
        if count == 1 and index == 0:
            return
        if not 0 <= index < count:
            raise ConfigError(f"--process={index}: expected 0 to {count - 1}, since --processes={count}")
        if coordinator is None and (launcher is None or not _address_is_known(launcher)):
            raise ConfigError(
                f"--coordinator: is needed for {count} processes, since "
                + (f"{launcher.name} does not say where" if launcher else "no launcher says where")
                + " process 0 is; give --coordinator=HOST:PORT"
            )
        _initialize(coordinator, count, index, launcher, saves_at_sigterm)
    elif _on_tpu_vm():
        _initialize(None, None, None, None, saves_at_sigterm)


def _launcher(environment: Mapping[str, str]) -> _Launcher | None:
    """The launcher that started this process, if it started one of several.

    SLURM counts the tasks of the step: in a shell of an allocation, where the job has several tasks,
    the step of that shell has one.
    """

    def number(name):
        value = environment.get(name, "")
        return int(value) if value.isdigit() else None

    for name, count, index, local in (
        ("SLURM", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE"),
        ("Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ):
        if (number(count) or 1) > 1 and number(index) is not None:
            # SLURM writes '1(x4)' for one task on each of four nodes.
            per_host = re.match(r"\d+", environment.get(local, ""))
            return _Launcher(name, number(count), number(index), per_host and int(per_host[0]))
    return None


def _address_is_known(launcher: _Launcher) -> bool:
    """Whether JAX finds process 0 by itself; Open MPI says where it is up to version 4."""
    needed = {"SLURM": "SLURM_STEP_NODELIST", "Open MPI": "OMPI_MCA_orte_hnp_uri"}[launcher.name]
    return needed in os.environ


def _on_tpu_vm() -> bool:
    """Whether this host has TPU chips, and several hosts may: only JAX can ask how many there are.

    On GKE the names of the hosts are in the environment. Elsewhere JAX asks the metadata server; where
    that knows one host, the run is a cluster of one.
    """
    if importlib.util.find_spec("libtpu") is None or not (
        glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    ):
        return False
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES", os.environ.get("TPU_WORKER_HOSTNAMES"))
    slices = os.environ.get("MEGASCALE_NUM_SLICES", "1")
    return hosts is None or "," in hosts or slices != "1"


def _initialize(
    coordinator: str | None,
    count: int | None,
    index: int | None,
    launcher: _Launcher | None,
    saves_at_sigterm: bool,
) -> None:
    global _place
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", saves_at_sigterm)
    bind = coordinator if coordinator and _is_loopback(coordinator) else None  # else on all interfaces
    with _Deadline(coordinator, index, count):
        try:
            jax.distributed.initialize(
                coordinator,
                count,
                index,
                coordinator_bind_address=bind,
                # The deadline comes first: the runtime would end the process with a stack trace.
                initialization_timeout=START_SECONDS + 60,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
            )
        except ValueError as error:
            if count is None:  # a TPU VM that is part of no cluster
                return
            raise ConfigError(f"the {count} processes cannot be joined ({error})") from error
        except RuntimeError as error:
            raise ConfigError(
                f"process {index} of {count} cannot join at {coordinator or 'the address of its launcher'} "
                f"({str(error).partition(chr(10))[0]})"
            ) from error
    if launcher is not None and launcher.on_this_host == 1 and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
        # Started by SLURM or Open MPI, JAX gives a process one GPU, as for one process per GPU.
        jax.config.update("jax_cuda_visible_devices", "all")
        jax.config.update("jax_rocm_visible_devices", "all")
    if count is None:
        count, index = jax.process_count(), jax.process_index()
    _place = Place(index, count)
    if index:
        _say_only_warnings()
    logging.info("process %d of %d", index, count)


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


class _Deadline:
    """Ends the process with one line when the block takes longer than `START_SECONDS`."""

    def __init__(self, coordinator: str | None, index: int | None, count: int | None):
        where = coordinator or "the address of the launcher"
        who = "this process" if index is None else f"process {index} of {count}"
        whom = "all the others" if index == 0 else "process 0"
        self._message = (
            f"{who} waited {START_SECONDS} s for {whom} at {where}; start all processes, with the same "
            "number of processes and the same coordinator, and look at the messages of those that ended"
        )
        self._timer = threading.Timer(START_SECONDS, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exception) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        print(f"error: {self._message}", file=sys.stderr, flush=True)
        os._exit(LostProcess.exit_code)  # the main thread waits in the runtime and cannot be woken


def _say_only_warnings() -> None:
    logging.set_verbosity(logging.WARNING)
    name = f"[process {_place.index}] "
    formatter = standard_logging.Formatter(f"{name}%(asctime)s %(message)s", "%H:%M:%S")
    logging.get_absl_handler().setFormatter(formatter)


def lost_another(error: BaseException | None) -> str | None:
    """The line of an error, or of its causes, that says that another process is gone; else None."""
    while _place.count > 1 and error is not None:
        for line in str(error).splitlines():
            if _GONE.search(line):
                return line.strip()
        error = error.__cause__ or error.__context__
    return None


def end_at_once(code: int) -> NoReturn:
    """Ends this process without waiting for the others, as a normal exit of one of several does.

    For errors, which may have come to this process alone, while the others wait for it in a collective
    operation: they notice that it is gone.
    """
    if _place.count > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        if is_first():
            # The runtime ends the others when this process is gone; what stopped it may have stopped
            # them too, and they say so themselves.
            time.sleep(_LAST_WORDS_SECONDS)
        os._exit(code)
    sys.exit(code)
