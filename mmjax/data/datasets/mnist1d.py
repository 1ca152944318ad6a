"""MNIST-1D: a signal of 40 samples for each digit, drawn at random from ten templates."""

from __future__ import annotations

import dataclasses
import pathlib

from mmjax.data.datasets.built import Built
from mmjax.data.source import HeldSource, Source

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class Mnist1d(Built):
    """MNIST-1D (Greydanus and Kobak 2020, arXiv:2011.14439): ten classes of short signals.

    Each is the template of a digit, stretched, scaled, shifted, sheared, and with noise added. 'train' has
    4,000 signals and 'test' 1,000, of about 400 and 100 per digit. They are those of the authors' package,
    of its seed 42, to the last bit of float32. Together they have mean 0 and standard deviation 1.

    Features of a record:
      signal: float32 `[40, 1]`.
      shuffled: the same with its samples in another order, one order for all signals: that of the
        authors' classification notebook.
      label: the digit.

    Attributes:
      split: 'train' or 'test'.
      wheels_dir: where the package's wheel lies, for machines without network; empty downloads it.
    """

    wheels_dir: str = ""

    def place(self) -> str:
        return f"mnist1d/{VERSION}"

    def builder(self, data_dir: str):
        """Fetches the wheel with the templates (15 kB, without its dependencies), and draws the signals."""
        from mmjax.data.datasets.mnist1d_builder import Mnist1dBuilder

        return Mnist1dBuilder(wheels_dir=self.wheels_dir, data_dir=data_dir)

    def open(self, data_dir: pathlib.Path) -> Source:
        """The records of the split; they stay in memory (1.3 MB), since a run reads each a hundred times."""
        return HeldSource(super().open(data_dir))
