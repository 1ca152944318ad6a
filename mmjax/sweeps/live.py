"""The table of trials that a terminal shows while a study runs."""

from __future__ import annotations

import collections
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from mmjax.reports.format import number
from mmjax.sweeps import points
from mmjax.sweeps.results import FINISHED, RUNNING, WAITING, Row
from mmjax.sweeps.study import Settings

_BEST = 5  # finished trials shown below the running ones
_SECONDS_BETWEEN_LINES = 15.0
_HEADER = ("trial", "state", "step", "best", "examples/s", "what")


class Live:
    """Draws the table anew on a terminal; elsewhere writes a line when a trial's state changes.

    Args:
      settings: of the study.
      out: where to.
    """

    def __init__(self, settings: Settings, out: TextIO = sys.stderr):
        self._settings, self._out = settings, out
        self._terminal = out.isatty()
        self._drawn = 0
        self._states: dict[int, tuple[str, int]] = {}
        self._last = time.monotonic()

    def show(self, rows: Sequence[Row]) -> None:
        """Shows how the trials are."""
        if self._terminal:
            width, _ = shutil.get_terminal_size()
            lines = [line[: width - 1] for line in table(rows, self._settings)]
            up = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
            self._out.write(up + "".join(f"{line}\n" for line in lines))
            self._drawn = len(lines)
        else:
            self._write_changes(rows)
        self._out.flush()

    def _write_changes(self, rows):
        for row in rows:
            state = (row.state, row.attempts)
            if self._states.get(row.number, (WAITING, 0)) != state:
                again = f" (attempt {row.attempts})" if row.attempts > 1 else ""
                value = f"  {number(row.value)}" if row.value is not None else ""
                error = f"  {row.error}" if row.error else ""
                what = f"  {points.label(row.point)}" if row.point else ""
                self._out.write(f"trial {row.number}: {row.state}{again}{value}{what}{error}\n")
            self._states[row.number] = state
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._out.write(summary(rows, self._settings) + "\n")


def table(rows: Sequence[Row], settings: Settings) -> list[str]:
    """The lines of the table: running trials, the best others, and how many there are of each state."""
    running = [row for row in rows if row.state == RUNNING]
    done = [row for row in rows if row.state == FINISHED]
    done.sort(key=lambda row: -row.value if settings.direction == "max" else row.value)
    keys = list(dict.fromkeys(key for row in rows for key in row.point))
    names = dict(zip(keys, points.short_names(keys), strict=True))
    cells = [_HEADER, *(_cells(row, settings, names) for row in [*running, *done[:_BEST]])]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADER))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
    return [line.rstrip() for line in lines] + [summary(rows, settings)]


def summary(rows: Sequence[Row], settings: Settings) -> str:
    """How many trials there are of each state, and the best value."""
    counts = collections.Counter(row.state for row in rows)
    parts = [f"{count} {state}" for state, count in counts.items()]
    best = [row for row in rows if row.state == FINISHED]
    if best:
        pick = max if settings.direction == "max" else min
        row = pick(best, key=lambda row: row.value)
        parts.append(f"best {settings.metric} {number(row.value)} (trial {row.number})")
    return f"{len(rows)} trials: {', '.join(parts)}"


def _cells(row: Row, settings: Settings, names: Mapping[str, str]) -> tuple[str, ...]:
    pick = max if settings.direction == "max" else min
    values = [value for _, value in row.curve] or ([row.value] if row.value is not None else [])
    return (
        str(row.number),
        row.state + (f" (attempt {row.attempts})" if row.attempts > 1 else ""),
        str(row.step or ""),
        number(pick(values)) if values else "",
        f"{row.rate:.0f}" if row.rate else "",
        points.label({names[key]: value for key, value in row.point.items()}) if row.point else "",
    )
