"""Sort-of-CLEVR: questions about six coloured objects, with and without relations between them."""

from __future__ import annotations

import copy
import dataclasses
import pathlib
from collections.abc import Iterable

import numpy as np

from mmjax.data.datasets.built import Built
from mmjax.data.source import HeldSource, Record, Source, digest

VERSION = "1.0.0"

COLOURS = ("red", "green", "blue", "orange", "gray", "yellow")
ANSWERS = ("yes", "no", "square", "circle", "1", "2", "3", "4", "5", "6")
# What is asked about the object of a colour; the first three can be told from it alone.
KINDS = ("shape", "left", "top", "closest", "furthest", "count")
# Name of the feature that holds the answers to some kinds only.
GROUPS = {
    "non_relational": ("shape", "left", "top"),
    "relational": ("closest", "furthest", "count"),
    "closest_or_furthest": ("closest", "furthest"),
    "count": ("count",),
}
QUESTIONS = 20  # of an image: 10 without relations, then 10 with
BITS = len(COLOURS) + 2 + 3


@dataclasses.dataclass(frozen=True)
class SortOfClevr(Built):
    """Sort-of-CLEVR (Santoro et al. 2017, arXiv:1706.01427, section 3.2 and supplement D), drawn from a seed.

    An example is one question about an image of six objects, each of another colour and a square or a
    circle. 'train' has 9,800 images and 'test' 200, with 20 questions each, so 196,000 and 4,000
    examples. Questions without relations ask for the object's shape ('square', 'circle'), and whether
    it is in the left or in the upper half ('yes', 'no'); those with relations for the shape of the
    object closest to it or furthest from it, and how many objects have its shape ('1' to '6'). The
    ten questions of either sort are different ones of the eighteen there are.

    An image is stored once with all its questions. No two objects touch, and no two are equally close
    to or far from a third, so every question has one answer.

    Features of a record:
      image: PNG, `[75, 75, 3]`, on white.
      objects: float32 `[6, 10]`, the state description: an object per row, in random order, as x and
        y from -1 to 1 (y downwards), the colour one-hot of 6 and the shape one-hot of 2.
      question: float32 `[1, 11]` of 0 and 1: the colour asked for one-hot of 6, without or with
        relations one-hot of 2, and which of the three such questions one-hot of 3.
      answer: one of ten classes.
      non_relational, relational, closest_or_furthest, count: the answer where the question is of this
        kind, else None.
      kind: of the question, one of six classes. `image_id` numbers the images.

    Attributes:
      split: 'train' or 'test'.
    """

    def place(self) -> str:
        return f"sort_of_clevr/{VERSION}"

    def builder(self, data_dir: str):
        """Draws 10,000 images, and writes them with their questions."""
        from mmjax.data.datasets.sort_of_clevr_builder import SortOfClevrBuilder

        return SortOfClevrBuilder(data_dir=data_dir)

    def open(self, data_dir: pathlib.Path) -> Source:
        """An example per question; the images (10 MB) stay in memory, since an epoch reads each 20 times."""
        return QuestionSource(HeldSource(super().open(data_dir)))


class QuestionSource(Source):
    """A record per question, from a record per image with its questions.

    Args:
      images: records as `SortOfClevrBuilder` writes them.
    """

    def __init__(self, images: Source):
        self._images = images
        names = {"kind": list(KINDS)} | {label: list(ANSWERS) for label in ("answer", *GROUPS)}
        super().__init__(images.name, digest(["questions", images.fingerprint]), names)

    def __len__(self) -> int:
        return QUESTIONS * len(self._images)

    def read(self, index: int) -> Record:
        image = self._images[index // QUESTIONS]
        number = index % QUESTIONS
        kind, answer = int(image["kinds"][number]), int(image["answers"][number])
        record = {key: image[key] for key in ("image", "objects") if key in image}
        return {
            **record,
            "example_id": image["example_id"] * QUESTIONS + number,
            "image_id": image["example_id"],
            "question": image["questions"][number][None].astype(np.float32),
            "answer": answer,
            "kind": kind,
            **{group: answer if KINDS[kind] in kinds else None for group, kinds in GROUPS.items()},
        }

    def select(self, features: Iterable[str]) -> Source:
        view = copy.copy(self)
        view._images = self._images.select(
            ["questions", "answers", "kinds", *(name for name in features if name in ("image", "objects"))]
        )
        return view

    def verify(self) -> None:
        self._images.verify()
