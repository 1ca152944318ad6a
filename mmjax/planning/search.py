"""Settings that fit, found by compiling."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmjax.errors import ConfigError
from mmjax.planning.plan import Job, make_plan

_HALVES = 2  # refinements between the last batch that fits and the first that does not
_LARGEST = 2**20  # rows of a part of the batch, more than which nothing is asked


def largest_batch(job: Job, plan: Mapping[str, Any], make: Callable[[Job], dict] = make_plan) -> dict | None:
    """The largest batch that fits the chips, up to an eighth of the gap to the next power of two.

    Rows are doubled (or halved) from the job's own until it stops (or starts) to fit, then the gap is
    halved twice.

    Args:
      job: what was planned.
      plan: its plan.
      make: makes a plan.

    Returns:
      'batch_size', 'batch_per_chip', 'needed_bytes', 'compilations'; None where not even the smallest fits.
    """
    unit = plan["mesh"]["data"] * plan["mesh"]["fsdp"] * plan["accumulate_steps"]
    known = {plan["batch_size"] // unit: plan}

    def fits(rows: int) -> bool:
        if rows not in known:
            known[rows] = make(job.changed({"batch_size": str(rows * unit)}))
        return bool(known[rows]["fits"])

    rows = plan["batch_size"] // unit
    if fits(rows):
        low, high = rows, 2 * rows
        while high <= _LARGEST and fits(high):
            low, high = high, 2 * high
    else:
        low, high = rows // 2, rows
        while low and not fits(low):
            low, high = low // 2, low
        if not low:
            return None
    for _ in range(_HALVES):
        middle = (low + high) // 2
        if middle in (low, high):
            break
        low, high = (middle, high) if fits(middle) else (low, middle)
    found = known[low]
    return {
        "batch_size": found["batch_size"],
        "batch_per_chip": found["batch_per_chip"],
        "needed_bytes": found["needed_bytes"],
        "compilations": len(known),
    }


def nearest(
    job: Job, plan: Mapping[str, Any], make: Callable[[Job], dict] = make_plan
) -> list[dict[str, Any]]:
    """Settings near those of a plan that does not fit, and fit: the first of each kind.

    Args:
      job, plan, make: see `largest_batch`.

    Returns:
      Dictionaries of 'changes' (key of the config -> text) and 'needed_bytes'.
    """
    found = []
    for changes in _kinds(plan):
        for change in changes:
            try:
                tried = make(job.changed(change))
            except ConfigError:  # such as a batch that does not split
                continue
            if tried["fits"]:
                found.append({"changes": change, "needed_bytes": tried["needed_bytes"]})
                break
    return found


def _kinds(plan: Mapping[str, Any]) -> Iterator[Iterator[dict[str, str]]]:
    """Kinds of changes, and of each what to try one after the other."""
    mesh, same_batch = plan["mesh"], []
    if not plan["remat"]:
        same_batch.append({"remat": "true"})
    if mesh["data"] > 1:
        same_batch.append({"mesh.data": "1", "mesh.fsdp": str(mesh["data"] * mesh["fsdp"])})
    if len(same_batch) == 2:
        same_batch.append(same_batch[0] | same_batch[1])
    everything = functools.reduce(lambda a, b: a | b, same_batch, {})
    more = [plan["accumulate_steps"] * factor for factor in (2, 4, 8)]
    same_batch += [everything | {"optimizer.accumulate_steps": str(steps)} for steps in more]
    yield iter(same_batch)
    unit = mesh["data"] * mesh["fsdp"] * plan["accumulate_steps"]
    rows = plan["batch_size"] // unit
    yield ({"batch_size": str((rows >> n) * unit)} for n in range(1, rows.bit_length()))
