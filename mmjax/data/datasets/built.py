"""What data sets have in common that a TFDS builder of this project writes."""

from __future__ import annotations

import abc
import dataclasses
import pathlib
from typing import TYPE_CHECKING

from mmjax.data import prepared
from mmjax.data.source import Source

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


@dataclasses.dataclass(frozen=True)
class Built(abc.ABC):
    """A data set that is prepared once, in a place of its own, and then opened split by split.

    Attributes:
      split: which part of it.
    """

    split: str = "train"

    @abc.abstractmethod
    def place(self) -> str:
        """Where it lies among the data sets of TFDS: name, configuration if any, and version."""

    @abc.abstractmethod
    def builder(self, data_dir: str) -> tfds.core.DatasetBuilder:
        """What writes it; imports TFDS, which takes seconds, so only preparing does."""

    def prepare(self, data_dir: pathlib.Path) -> None:
        """Writes the data set; nothing when that is done.

        Raises:
          DataError: when what it is made of cannot be fetched, or it cannot be written.
        """
        if prepared.is_published(self._directory(data_dir)):
            return
        from mmjax.data import tfds_source

        tfds_source.prepare(self.builder, data_dir)

    def open(self, data_dir: pathlib.Path) -> Source:
        """The records of the split.

        Raises:
          DataError: when they are not prepared, or damaged.
        """
        from mmjax.data import tfds_source

        return tfds_source.TfdsSource(self._directory(data_dir), self.split)

    def _directory(self, data_dir):
        return data_dir / "tfds" / self.place()
