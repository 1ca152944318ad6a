"""One fold of a data set, for cross-validation."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import Any

import numpy as np

from mmjax.components import component
from mmjax.data.source import Source, SubsetSource
from mmjax.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Fold:
    """The records outside fold `fold` of `folds` (to train on), or those in it (`held_out`).

    The held-out folds of one (data set, folds, group, seed) share no record and cover all. A record's
    fold is a hash of its group, so that a group is never cut and its fold depends on nothing else.

    Attributes:
      dataset: what is cut.
      folds: how many folds.
      fold: which one, from 0.
      held_out: read the fold itself, not the rest.
      group: a feature whose equal values stay together (a speaker, 'concept_id'); empty lets every
        record stand for itself.
      seed: another number cuts anew.
    """

    dataset: component("datasets")
    folds: int = 5
    fold: int = 0
    held_out: bool = False
    group: str = ""
    seed: int = 0

    def __post_init__(self):
        if self.folds < 2:
            raise ConfigError(f"fold.folds: got {self.folds}, expected at least 2")
        if not 0 <= self.fold < self.folds:
            raise ConfigError(f"fold.fold: got {self.fold}, expected 0 to {self.folds - 1}")

    def prepare(self, data_dir: pathlib.Path) -> None:
        """Prepares the data set.

        Raises:
          DataError: as it does.
        """
        self.dataset.prepare(data_dir)

    def open(self, data_dir: pathlib.Path) -> Source:
        """The records of the fold or the rest, in the data set's order.

        Raises:
          DataError: when there are none, a record has no group, or the data is not prepared.
        """
        source = self.dataset.open(data_dir)
        path = self.group or "example_id"
        folds = np.array([self._fold_of(value, source.name) for value in source.column(path)])
        chosen = np.flatnonzero((folds == self.fold) == self.held_out)
        which = f"{'in' if self.held_out else 'outside'} fold {self.fold} of {self.folds}"
        if not len(chosen):
            raise DataError(f"{source.name}: no record is {which} by '{path}'; use fewer folds")
        return SubsetSource(source, chosen, f"{source.name} {which}")

    def _fold_of(self, value: Any, name: str) -> int:
        if not isinstance(value, str | int | float):
            raise DataError(f"{name}: a record's '{self.group}' is {value!r}, expected text or a number")
        return int(hashlib.sha256(f"{self.seed} {value}".encode()).hexdigest()[:15], 16) % self.folds
