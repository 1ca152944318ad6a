"""Times of calls that take turns."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `./launch.sh bench` was asked for.

    Attributes:
      rounds: how often each call is timed.
      batch: examples in a batch of the models; 0 leaves each benchmark its own.
    """

    rounds: int = 5
    batch: int = 0


def take_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round, as of a call that is made again and again.

    The call before a timed one is the same: what the others did in between to caches and to free memory
    (which a virtual machine may have given back to its host) is not its cost in a run of its own.

    Args:
      calls: each returns when its work is done.
      rounds: in each, every call is made twice, and timed the second time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def summary(seconds: Mapping[str, Sequence[float]], base: str) -> dict[str, dict[str, Any]]:
    """For each call the median of its seconds, and of the ratios `base` / it within one round.

    A ratio below 1 says that `base` is faster. Its range over the rounds says how far to trust it.
    """
    rows = {}
    for name, times in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(seconds[base], times, strict=True)]
        rows[name] = {
            "seconds": statistics.median(times),
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
        }
    return rows


def ratio_text(row: Mapping[str, Any]) -> str:
    """'0.87 (0.85 to 0.90)'."""
    low, high = row["ratio_range"]
    return f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
