"""The train step of a config, compiled for devices that are not here."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from mmjax.errors import ConfigError
from mmjax.planning.stand_in import PlanData
from mmjax.training import sizes
from mmjax.training.setup import Setup, check_config, set_up

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_NEEDS = re.compile(r"\(([\d.]+)([KMGT]?)B?\) exceeds|Used ([\d.]+)([KMGT]?)B? of")
_OUT_OF_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|Ran out of memory", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Compilation:
    """What the compiler made of a step.

    Attributes:
      compiled: the program; None where it does not fit.
      reason: the compiler's own words where it does not fit.
      needed_bytes: that it would need, as far as the compiler says.
      seconds: that compiling took, tracing included.
    """

    compiled: jax.stages.Compiled | None
    reason: str
    needed_bytes: int | None
    seconds: float

    @property
    def fits(self) -> bool:
        return self.compiled is not None


def make_setup(config: ConfigDict, data: PlanData, devices: Sequence[Any]) -> Setup:
    """What `train` makes before its first step, for other devices.

    Raises:
      ConfigError: naming the first key that does not fit.
    """
    check_config(config, devices)
    loaded = data.loaded
    try:
        filled = sizes.fill(config, data.tokenizers, loaded.class_names)
    except ConfigError as error:
        if not data.notes:
            raise
        raise ConfigError(f"{error} (the data is not prepared on this machine), or prepare it") from None
    return set_up(filled, loaded, devices)


def compile_step(setup: Setup) -> Compilation:
    """Compiles the step that `train` would run; memory that does not suffice is an answer."""
    start = time.monotonic()
    try:
        compiled = setup.compile_train_step()
    except jax.errors.JaxRuntimeError as error:
        message = str(error)
        # The chip's own small memory is a matter of a kernel, which no smaller batch cures.
        if not _OUT_OF_MEMORY.search(message) or "vmem" in message.lower():
            raise
        return Compilation(None, _first_line(message), _needed(message), time.monotonic() - start)
    return Compilation(compiled, "", None, time.monotonic() - start)


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0].strip()


def _needed(message: str) -> int | None:
    found = _NEEDS.search(message)
    if not found:
        return None
    number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return int(float(number) * _UNITS[unit])
