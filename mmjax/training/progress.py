"""Progress of a long run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from absl import logging
from tqdm import tqdm

from mmjax.parallel.processes import is_first

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Shows step, loss, examples per second, model FLOPs utilisation and the time left.

    Args:
      total: steps of the run.
      step: steps done before.
      batch_size: examples in a step.
    """

    def __init__(self, total: int, step: int, batch_size: int):
        self._total, self._batch_size = total, batch_size
        self._began, self._first = time.monotonic(), step
        self._last_line = self._began
        self._bar = None
        if is_first() and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, step: int, loss: float, mfu: float) -> None:
        """Reports the state after `step`; `mfu` of the steps since it was shown before, 0 to 1."""
        now = time.monotonic()
        rate = (step - self._first) / max(now - self._began, 1e-9)
        examples = rate * self._batch_size
        if self._bar is not None:
            self._bar.set_postfix(
                loss=f"{loss:.4g}", examples_per_s=f"{examples:.0f}", mfu=f"{mfu:.0%}", refresh=False
            )
            self._bar.update(step - self._bar.n)
        elif step == self._total or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self._total - step) / rate if rate else float("inf")
            logging.info(
                "step %d/%d  loss %.4g  %.0f examples/s  MFU %.0f%%  %.0f s left",
                step,
                self._total,
                loss,
                examples,
                100 * mfu,
                left,
            )
