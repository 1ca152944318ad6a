"""OpenMoji: 3,928 drawings with names in 14 languages, from pip packages alone."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from mmjax.data import prepared
from mmjax.data.source import Source, SubsetSource
from mmjax.errors import ConfigError

VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class OpenMoji:
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

    split: str = "train"
    base_only: bool = False
    image_size: int = 64

    def __post_init__(self):
        if not 8 <= self.image_size <= 1024:
            raise ConfigError(f"openmoji.image_size: got {self.image_size}, expected 8 to 1024 pixels")

    def prepare(self, data_dir: pathlib.Path) -> None:
        """Draws all emoji (about 12 seconds of one core for 64 pixels); nothing when that is done.

        Raises:
          DataError: when it cannot be written.
        """
        if prepared.is_published(self._directory(data_dir)):
            return
        from mmjax.data import tfds_source
        from mmjax.data.datasets import openmoji_builder

        config = f"{self.image_size}px"
        tfds_source.prepare(
            lambda place: openmoji_builder.OpenMojiBuilder(config=config, data_dir=place), data_dir
        )

    def open(self, data_dir: pathlib.Path) -> Source:
        """The records of the split.

        Raises:
          DataError: when they are not prepared, or damaged.
        """
        from mmjax.data import tfds_source

        source = tfds_source.TfdsSource(self._directory(data_dir), self.split)
        if not self.base_only:
            return source
        return SubsetSource(source, np.flatnonzero(source.column("is_base")), f"{source.name}/base")

    def _directory(self, data_dir):
        return data_dir / "tfds" / "openmoji" / f"{self.image_size}px" / VERSION
