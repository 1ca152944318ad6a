"""What a plan is for: chips that are not here, and the devices that stand for them.

TPU topologies are compiled for with the TPU compiler, which the package `libtpu` holds; it needs no TPU.
`cpu:N` are virtual devices of this machine. For `h100:N` there is no compiler: virtual CPU devices lay out
the arrays, and nothing is compiled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from mmjax.errors import ConfigError
from mmjax.parallel.chips import CHIPS, Chip

# The variable that names libtpu.so where launch.sh has put it.
COMPILER = "MMJAX_TPU_COMPILER"
_FORMS = "v5e:4x4 (also v4, v5p, v6e), 2xv5e:4x4 for two slices, cpu:8 or h100:8"
_TPU = re.compile(r"(?:([1-9]\d*)x)?((v4|v5e|v5p|v6e):([1-9]\d*(?:x[1-9]\d*)+))")
_COUNTED = re.compile(r"(cpu|h100):([1-9]\d*)")
_HOST_DEVICES = "--xla_force_host_platform_device_count"


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips that run one step together.

    Attributes:
      name: as given, such as 'v5e:4x4', or '2xv5e:4x4' for two slices that the data-centre network joins.
      platform: 'tpu', 'cpu' or 'gpu'.
      count: how many chips.
      chip: its figures; None for CPUs.
      slices: of TPUs.
    """

    name: str
    platform: str
    count: int
    chip: Chip | None
    slices: int = 1

    @property
    def compiles(self) -> bool:
        """Whether there is a compiler for it on this machine."""
        return self.platform != "gpu"


def parse(text: str) -> Topology:
    """Reads a `--topology`; `ConfigError` for what is none."""
    if found := _TPU.fullmatch(text):
        slices = int(found[1] or 1)
        count = slices * math.prod(map(int, found[4].split("x")))
        return Topology(text, "tpu", count, CHIPS[found[3]], slices)
    if found := _COUNTED.fullmatch(text):
        platform = "cpu" if found[1] == "cpu" else "gpu"
        return Topology(text, platform, int(found[2]), CHIPS.get(found[1]))
    raise ConfigError(f"--topology={text}: expected chips and their arrangement, such as {_FORMS}")


def prepare_process(topologies: Sequence[Topology]) -> None:
    """Sets what JAX and the TPU compiler read when they start; call it before JAX is imported.

    Raises:
      ConfigError: a TPU topology is asked for and the compiler is not there.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"  # whatever this machine has stays free
    wanted = max((t.count for t in topologies if t.platform != "tpu"), default=0)
    if wanted and "jax" not in sys.modules:
        flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(_HOST_DEVICES)]
        os.environ["XLA_FLAGS"] = " ".join([*flags, f"{_HOST_DEVICES}={wanted}"])
    tpu = [t.name for t in topologies if t.platform == "tpu"]
    if tpu:
        if not has_tpu_compiler():
            raise ConfigError(
                f"--topology={tpu[0]}: the TPU compiler is not installed; ./launch.sh plan installs it by "
                "itself, elsewhere: pip install 'mmjax[tpu-plan]'"
            )
        if path := os.environ.get(COMPILER):
            os.environ["TPU_LIBRARY_PATH"] = path
        # No TPU is used: none is asked about its place in a pod, and none is kept from other processes.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")


def has_tpu_compiler() -> bool:
    """Whether `libtpu` is where MMJAX_TPU_COMPILER says, or installed."""
    path = os.environ.get(COMPILER)
    return os.path.isfile(path) if path else importlib.util.find_spec("libtpu") is not None


def tpu_compiler_version() -> str:
    """Of `libtpu`; empty where it was installed without its metadata."""
    path = os.environ.get(COMPILER)
    where = [str(pathlib.Path(path).parents[1])] if path else sys.path
    return next((found.version for found in metadata.distributions(name="libtpu", path=where)), "")


def devices(topology: Topology) -> list[Any]:
    """The devices to make a mesh of, after `prepare_process`.

    Raises:
      ConfigError: there is no such topology, or JAX has started with fewer virtual devices.
    """
    import jax

    if topology.platform != "tpu":
        found = jax.devices("cpu")
        if len(found) < topology.count:
            raise ConfigError(
                f"--topology={topology.name}: JAX has started with {len(found)} virtual devices; "
                f"set XLA_FLAGS={_HOST_DEVICES}={topology.count}"
            )
        return found[: topology.count]
    from jax.experimental import topologies

    further = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.count == 1:
        further["chips_per_host_bounds"] = [1, 1, 1]
    if topology.chip.name == "v4":
        further["chip_config_name"] = "megacore"  # one device per chip, as on TPU VMs
    try:
        with _no_stderr():  # it complains there that it finds no TPU; what counts it raises
            found = topologies.get_topology_desc(_TPU.fullmatch(topology.name)[2], "tpu", **further).devices
    except Exception as error:  # the compiler's own, of which the first line says what is wrong
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"--topology={topology.name}: the TPU compiler refuses it ({reason})") from None
    return list(found)


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Inside, what a library writes to the process's standard error is dropped."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
