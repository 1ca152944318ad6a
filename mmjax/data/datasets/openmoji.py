"""OpenMoji: 3,928 drawings with names in 14 languages, from pip packages alone."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from mmjax.data.datasets.built import Built
from mmjax.data.source import Source, SubsetSource
from mmjax.errors import ConfigError

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class OpenMoji(Built):
    """OpenMoji image-text: retrieval, zero-shot classification, short captions, translation of names.

    The splits hold about 70, 15 and 15 percent of the 1,903 base emoji (285 in 'test') with their
    skin-tone variants. All emoji of one concept are in one split: skin tones, genders, directions,
    and territories that share their country's drawing of the flag.

    Features of a record:
      image: PNG, `[image_size, image_size, 3]`, on white.
      name: the English name; `names`: by language (ar de en es fa fr id it ja ko pt ru tr zh).
      keywords: further English names; may be empty.
      group, subgroup: one of 10 and one of 100 classes, Unicode's.
      concept_id: the same for everything that must stay in one split.
      pixel_id: the same for drawings that are identical pixel by pixel; any of their names is a
        right answer in retrieval.
      is_base: no skin-tone variant. `is_flag`: one of the 258 country flags.
      emoji: the characters. `example_id`: over all splits, by code points.

    Drawings: CC BY-SA 4.0, by the OpenMoji project (openmoji.org).

    Attributes:
      split: 'train', 'validation' or 'test'.
      base_only: leave the skin-tone variants out.
      image_size: height and width in pixels.
    """

    base_only: bool = False
    image_size: int = 64

    def __post_init__(self):
        if not 8 <= self.image_size <= 1024:
            raise ConfigError(f"openmoji.image_size: got {self.image_size}, expected 8 to 1024 pixels")

    def place(self) -> str:
        return f"openmoji/{self.image_size}px/{VERSION}"

    def builder(self, data_dir: str):
        """Draws all emoji, in about 12 seconds of one core for 64 pixels."""
        from mmjax.data.datasets.openmoji_builder import OpenMojiBuilder

        return OpenMojiBuilder(config=f"{self.image_size}px", data_dir=data_dir)

    def open(self, data_dir: pathlib.Path) -> Source:
        """The records of the split, without skin-tone variants where `base_only` is on."""
        source = super().open(data_dir)
        if not self.base_only:
            return source
        return SubsetSource(source, np.flatnonzero(source.column("is_base")), f"{source.name}/base")
