"""Several data sets as one."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from mmjax.components import component
from mmjax.data.source import MixtureSource
from mmjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Data sets that are drawn from by weight in training, and read one after the other otherwise.

    A feature that only some of them have is missing in the others; class labels of the same name
    must have the same classes.

    Attributes:
      sources: the data sets.
      weights: how often each is drawn, relative to the others; empty draws by size.
    """

    sources: Sequence[component("datasets")]
    weights: Sequence[float] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if not self.sources:
            raise ConfigError("mixture.sources: is empty, expected at least one data set")
        if self.weights and len(self.weights) != len(self.sources):
            raise ConfigError(
                f"mixture.weights: got {len(self.weights)} for {len(self.sources)} sources, expected one each"
            )
        if any(weight <= 0 for weight in self.weights):
            raise ConfigError(f"mixture.weights: got {list(self.weights)}, expected numbers above 0")

    def prepare(self, data_dir: pathlib.Path) -> None:
        """Prepares every data set.

        Raises:
          DataError: as they do.
        """
        for source in self.sources:
            source.prepare(data_dir)

    def open(self, data_dir: pathlib.Path) -> MixtureSource:
        """The records of all data sets, in order.

        Raises:
          DataError: when one is empty or not prepared, or a label has other classes in another.
        """
        parts = [source.open(data_dir) for source in self.sources]
        return MixtureSource(parts, list(self.weights) or [float(len(part)) for part in parts])
