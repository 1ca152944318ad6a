"""Bimodal Trifeature: pairs of images that share their shape and differ in texture and colour."""

from __future__ import annotations

import copy
import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Literal

import numpy as np

from mmjax.data.datasets.built import Built
from mmjax.data.source import HeldSource, Record, Source, digest
from mmjax.errors import ConfigError, DataError

VERSION = "1.0.0"

SHAPES = (
    *("triangle", "square", "plus", "circle", "tee"),
    *("rhombus", "pentagon", "star", "fivesquare", "trapezoid"),
)
COLOURS = ("red", "green", "blue", "yellow", "pink", "cyan", "purple", "ocean", "orange", "white")
TEXTURES = (
    *("solid", "stripes", "grid", "hexgrid", "dots"),
    *("noise", "triangles", "zigzags", "rain", "pluses"),
)
_SEED = 2409_07402


@dataclasses.dataclass(frozen=True)
class Trifeature(Built):
    """Pairs of Trifeature images, as in CoMM (Dufumier et al. 2024, arXiv:2409.07402, section 4.1).

    An image shows one of ten shapes in one of ten colours and textures (Hermann and Lampinen 2020,
    arXiv:2006.12433, section 3), at a random place and rotation, on grey. Of the thousand combinations
    800 are in 'train', with three images each, and the other 200 in 'test', with one. A pair is two images
    of one split that have the same shape; the textures and colours of the two are independent. What both
    tell is redundant (the shape), what one tells is unique (its texture), and what only both together
    tell is synergy: whether the texture of the first goes with the colour of the second, in a fixed
    one-to-one assignment that agrees for a tenth of all pairs.

    Images are stored once; a pair is two of their numbers, drawn from a fixed seed.

    Features of a record:
      first, second: PNG, `[size, size, 3]`.
      shape: of both, one of ten classes.
      texture_first, texture_second, colour_first, colour_second: one of ten classes each.
      agreement: 1 where the texture of the first goes with the colour of the second, else 0.

    Attributes:
      split: 'train' or 'test'.
      size: height and width of the images in pixels, 32 or more; 224 in the paper.
      pairs: how many, at most; fewer where there are fewer.
      agreeing: 'any' draws from all pairs, 'all' from those that agree (the biased set on which synergy
        is learned), 'half' as many of those that agree as of those that do not, so that guessing is
        right half of the time.
    """

    size: int = 224
    pairs: int = 10_000
    agreeing: Literal["any", "all", "half"] = "any"

    def __post_init__(self):
        if self.size < 32:
            raise ConfigError(f"trifeature.size: got {self.size}, expected 32 pixels or more")
        if self.pairs < 2:
            raise ConfigError(f"trifeature.pairs: got {self.pairs}, expected 2 or more")

    def place(self) -> str:
        return f"trifeature/{self.size}px/{VERSION}"

    def builder(self, data_dir: str):
        """Draws 2,600 images and writes them."""
        from mmjax.data.datasets.trifeature_builder import TrifeatureBuilder

        return TrifeatureBuilder(self.size, data_dir=data_dir)

    def open(self, data_dir: pathlib.Path) -> Source:
        """The pairs; the images stay in memory (at most 30 MB), since each is part of many."""
        return PairSource(HeldSource(super().open(data_dir)), self.pairs, self.agreeing)


class PairSource(Source):
    """A record per pair of images that share their shape.

    Args:
      images: records as `TrifeatureBuilder` writes them.
      pairs, agreeing: see `Trifeature`.

    Raises:
      DataError: there is no such pair.
    """

    def __init__(self, images: Source, pairs: int, agreeing: str):
        self._images = images
        labels = {
            name: np.array(images.column(name)) for name in ("example_id", "shape", "texture", "colour")
        }
        self._pairs, self._agrees = _draw(labels, pairs, agreeing)
        if not len(self._pairs):
            raise DataError(f"{images.name}: has no two images of one shape that are '{agreeing}'")
        names = {"shape": list(SHAPES), "agreement": ["different", "agreeing"]}
        for side in ("first", "second"):
            names |= {f"texture_{side}": list(TEXTURES), f"colour_{side}": list(COLOURS)}
        name = f"{images.name} pairs, {agreeing}"
        super().__init__(name, digest(["pairs", images.fingerprint, self._pairs]), names)

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> Record:
        first, second = (self._images[int(number)] for number in self._pairs[index])
        record = {"example_id": index, "shape": first["shape"], "agreement": int(self._agrees[index])}
        for side, image in (("first", first), ("second", second)):
            if "image" in image:
                record[side] = image["image"]
            record |= {f"{name}_{side}": image[name] for name in ("texture", "colour")}
        return record

    def select(self, features: Iterable[str]) -> Source:
        view = copy.copy(self)
        images = ["image"] if {"first", "second"} & set(features) else []
        view._images = self._images.select(["shape", "texture", "colour", *images])
        return view

    def verify(self) -> None:
        self._images.verify()


def partners() -> np.ndarray:
    """The colour that goes with each texture, `[10]`, every colour with one."""
    return np.random.default_rng(_SEED).permutation(len(COLOURS))


def _draw(labels: dict[str, np.ndarray], pairs: int, agreeing: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions of both images `[n, 2]`, and whether they agree `[n]`; none twice, in random order.

    They depend on the images' ids, not on the order in which these are stored.
    """
    order = np.argsort(labels["example_id"])
    shape, texture, colour = (labels[name][order] for name in ("shape", "texture", "colour"))
    allowed = (shape[:, None] == shape[None, :]) & ~np.eye(len(order), dtype=bool)
    agrees = partners()[texture][:, None] == colour[None, :]
    rng = np.random.default_rng([_SEED, len(order), len(agreeing)])

    def some(which: np.ndarray, count: int) -> np.ndarray:
        found = np.argwhere(which)
        return found[rng.permutation(len(found))[:count]]

    if agreeing == "half":
        half = min(pairs // 2, int((allowed & agrees).sum()))
        drawn = np.concatenate([some(allowed & agrees, half), some(allowed & ~agrees, half)])
        drawn = drawn[rng.permutation(len(drawn))]
    else:
        drawn = some(allowed & agrees if agreeing == "all" else allowed, pairs)
    return order[drawn], agrees[drawn[:, 0], drawn[:, 1]]
