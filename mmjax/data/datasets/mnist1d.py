"""MNIST-1D: a signal of 40 samples for each digit, drawn at random from ten templates."""

from __future__ import annotations

import dataclasses
import pathlib

from mmjax.data import prepared
from mmjax.data.source import HeldSource, Source

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class Mnist1d:
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

    split: str = "train"
    wheels_dir: str = ""

    def prepare(self, data_dir: pathlib.Path) -> None:
        """Fetches the wheel with the templates (15 kB, without its dependencies), and draws the signals.

        Raises:
          DataError: when the wheel cannot be fetched, is not the pinned one, or nothing can be written.
        """
        if prepared.is_published(self._directory(data_dir)):
            return
        from mmjax.data import tfds_source
        from mmjax.data.datasets import mnist1d_builder

        tfds_source.prepare(
            lambda place: mnist1d_builder.Mnist1dBuilder(wheels_dir=self.wheels_dir, data_dir=place),
            data_dir,
        )

    def open(self, data_dir: pathlib.Path) -> Source:
        """The records of the split; they stay in memory (1.3 MB), since a run reads each a hundred times.

        Raises:
          DataError: when they are not prepared, or damaged.
        """
        from mmjax.data import tfds_source

        return HeldSource(tfds_source.TfdsSource(self._directory(data_dir), self.split))

    def _directory(self, data_dir):
        return data_dir / "tfds" / "mnist1d" / VERSION
