"""Writes Sort-of-CLEVR as a TFDS data set: draws its images and asks its questions."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw

from mmjax.data import tfds_source
from mmjax.data.datasets.sort_of_clevr import ANSWERS, BITS, COLOURS, KINDS, QUESTIONS, VERSION

SIZE = 75  # height and width of an image
HALF = 5  # of an object's side, or its radius
IMAGES = {"train": 9800, "test": 200}
_SEED = 1706_01427
_RGB = {
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "orange": (255, 165, 0),
    "gray": (128, 128, 128),
    "yellow": (255, 255, 0),
}
_BACKGROUND = (255, 255, 255)

_CITATION = """@inproceedings{santoro2017simple,
  title = {A simple neural network module for relational reasoning},
  author = {Santoro, Adam and Raposo, David and Barrett, David G. T. and Malinowski, Mateusz and
            Pascanu, Razvan and Battaglia, Peter and Lillicrap, Timothy},
  booktitle = {NeurIPS}, year = {2017},
}"""


class SortOfClevrBuilder(tfds.core.GeneratorBasedBuilder):
    """Images of six coloured squares and circles, with 20 questions each."""

    name = "sort_of_clevr"
    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Sort-of-CLEVR, drawn from a seed after the paper's description.",
            homepage="https://arxiv.org/abs/1706.01427",
            citation=_CITATION,
            license="Generated; no rights of others.",
            features=tfds.features.FeaturesDict(
                {
                    "example_id": np.int32,
                    "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
                    "objects": tfds.features.Tensor(shape=(len(COLOURS), 10), dtype=np.float32),
                    "questions": tfds.features.Tensor(shape=(QUESTIONS, BITS), dtype=np.uint8),
                    "answers": tfds.features.Tensor(shape=(QUESTIONS,), dtype=np.int32),
                    "kinds": tfds.features.Tensor(shape=(QUESTIONS,), dtype=np.int32),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        first, splits = 0, {}
        for split, count in IMAGES.items():
            splits[split] = self._generate_examples(range(first, first + count))
            first += count
        return splits

    def _generate_examples(self, ids):
        for example_id in ids:
            rng = np.random.default_rng([_SEED, example_id])  # an image depends on no other one
            scene = draw_scene(rng)
            questions, kinds, answers = ask(scene, rng)
            yield (
                example_id,
                {
                    "example_id": example_id,
                    "image": tfds_source.png(render(scene)),
                    "objects": describe(scene, rng),
                    "questions": questions,
                    "answers": answers,
                    "kinds": kinds,
                },
            )


@dataclasses.dataclass(frozen=True)
class Scene:
    """Six objects, in the order of `COLOURS`.

    Attributes:
      centres: int `[6, 2]`, x and y in pixels, y downwards.
      circles: bool `[6]`; the others are squares.
    """

    centres: np.ndarray
    circles: np.ndarray

    def distances(self) -> np.ndarray:
        """Squared distances between the centres, int `[6, 6]`."""
        return np.square(self.centres[:, None] - self.centres[None]).sum(axis=-1)


def draw_scene(rng: np.random.Generator) -> Scene:
    """Random shapes at random places, at least a pixel apart, without ties in any object's distances."""
    circles = rng.integers(0, 2, len(COLOURS)).astype(bool)
    while True:
        centres = rng.integers(HALF, SIZE - HALF, (len(COLOURS), 2))
        scene = Scene(centres, circles)
        others = ~np.eye(len(COLOURS), dtype=bool)
        apart = np.abs(centres[:, None] - centres[None]).max(axis=-1)[others].min() > 2 * HALF + 1
        if apart and not _has_ties(scene):
            return scene


def _has_ties(scene: Scene) -> bool:
    """Whether the closest or the furthest object of any one could be two."""
    ordered = np.sort(scene.distances(), axis=1)[:, 1:]  # without itself
    return bool((ordered[:, 0] == ordered[:, 1]).any() or (ordered[:, -1] == ordered[:, -2]).any())


def render(scene: Scene) -> Image.Image:
    """The picture of a scene."""
    image = Image.new("RGB", (SIZE, SIZE), _BACKGROUND)
    canvas = ImageDraw.Draw(image)
    for colour, (x, y), circle in zip(COLOURS, scene.centres.tolist(), scene.circles, strict=True):
        box = (x - HALF, y - HALF, x + HALF, y + HALF)
        (canvas.ellipse if circle else canvas.rectangle)(box, fill=_RGB[colour])
    return image


def describe(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The state description, float32 `[6, 10]`, its rows in random order."""
    places = scene.centres / (0.5 * (SIZE - 1)) - 1.0
    colours = np.eye(len(COLOURS))
    shapes = np.stack([~scene.circles, scene.circles], axis=1)
    objects = np.concatenate([places, colours, shapes], axis=1).astype(np.float32)
    return objects[rng.permutation(len(objects))]


def ask(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten different questions without relations, then ten with.

    Returns:
      questions uint8 `[20, 11]`, their kinds and their answers int32 `[20]`.
    """
    questions = np.zeros((QUESTIONS, BITS), np.uint8)
    kinds, answers = np.zeros((2, QUESTIONS), np.int32)
    half = QUESTIONS // 2
    for relational in (0, 1):
        chosen = rng.permutation(3 * len(COLOURS))[:half]
        for row, number in enumerate(chosen.tolist(), start=relational * half):
            which, colour = divmod(number, len(COLOURS))
            kinds[row] = 3 * relational + which
            ones = [colour, len(COLOURS) + relational, len(COLOURS) + 2 + which]
            questions[row, ones] = 1
            answers[row] = ANSWERS.index(answer(scene, KINDS[kinds[row]], colour))
    return questions, kinds, answers


def answer(scene: Scene, kind: str, colour: int) -> str:
    """The answer to a question of a kind, about the object of a colour."""
    distances = scene.distances()[colour]
    if kind == "left":
        return "yes" if scene.centres[colour, 0] <= SIZE // 2 else "no"
    if kind == "top":
        return "yes" if scene.centres[colour, 1] <= SIZE // 2 else "no"
    if kind == "count":
        return str(int((scene.circles == scene.circles[colour]).sum()))
    if kind == "closest":
        distances[colour] = distances.max() + 1  # not itself
        colour = int(distances.argmin())
    elif kind == "furthest":
        colour = int(distances.argmax())
    return "circle" if scene.circles[colour] else "square"
