"""Writes the Trifeature images as a TFDS data set: draws every combination of shape, colour and texture."""

from __future__ import annotations

import itertools
import math

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw

from mmjax.data import tfds_source
from mmjax.data.datasets.trifeature import COLOURS, SHAPES, TEXTURES, VERSION

_SEED = 2006_12433
_TEST = 200  # of the 1,000 combinations
_VIEWS = 3  # images of a combination in 'train'
_SIDE = 128 / 224  # of the square around a shape, in sides of the image
_ANGLE = 45  # degrees, the largest rotation of a shape and of a texture
_PERIOD = 10 / 224  # of a texture, in sides of the image
_SHORTEST_PERIOD = 6.0  # pixels; finer ones would be lost in small images
_FINE = 4  # pixels per pixel when a shape is drawn
_GREY = 0.5
_RGB = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "pink": (1.0, 0.4, 1.0),
    "cyan": (0.0, 1.0, 1.0),
    "purple": (0.3, 0.0, 0.5),
    "ocean": (0.1, 0.4, 0.5),
    "orange": (1.0, 0.6, 0.0),
    "white": (1.0, 1.0, 1.0),
}

_CITATION = """@inproceedings{hermann2020what,
  title = {What shapes feature representations? Exploring datasets, architectures, and training},
  author = {Hermann, Katherine L. and Lampinen, Andrew K.},
  booktitle = {NeurIPS}, year = {2020},
}
@inproceedings{dufumier2025what,
  title = {What to align in multimodal contrastive learning?},
  author = {Dufumier, Benoit and Castillo-Navarro, Javiera and Tuia, Devis and Thiran, Jean-Philippe},
  booktitle = {ICLR}, year = {2025},
}"""


class TrifeatureBuilder(tfds.core.GeneratorBasedBuilder):
    """Images of ten shapes in ten colours and ten textures."""

    name = "trifeature"
    VERSION = tfds.core.Version(VERSION)

    def __init__(self, size: int, **kwargs):
        self._size = size
        description = f"Images of {size} x {size} pixels."
        super().__init__(
            config=tfds.core.BuilderConfig(name=f"{size}px", version=VERSION, description=description),
            **kwargs,
        )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Trifeature images, drawn from a seed after the paper's description.",
            homepage="https://arxiv.org/abs/2006.12433",
            citation=_CITATION,
            license="Generated; no rights of others.",
            features=tfds.features.FeaturesDict(
                {
                    "example_id": np.int32,
                    "image": tfds.features.Image(shape=(self._size, self._size, 3), encoding_format="png"),
                    "shape": tfds.features.ClassLabel(names=SHAPES),
                    "texture": tfds.features.ClassLabel(names=TEXTURES),
                    "colour": tfds.features.ClassLabel(names=COLOURS),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        combinations = list(itertools.product(SHAPES, TEXTURES, COLOURS))
        order = np.random.default_rng(_SEED).permutation(len(combinations)).tolist()
        return {
            "train": self._generate_examples([combinations[i] for i in order[_TEST:]], _VIEWS, 0),
            "test": self._generate_examples([combinations[i] for i in order[:_TEST]], 1, 10_000),
        }

    def _generate_examples(self, combinations, views, first):
        ids = itertools.count(first)
        for shape, texture, colour in combinations:
            for _ in range(views):
                example_id = next(ids)
                rng = np.random.default_rng([_SEED, example_id])  # an image depends on no other one
                yield (
                    example_id,
                    {
                        "example_id": example_id,
                        "image": tfds_source.png(render(shape, texture, colour, self._size, rng)),
                        "shape": shape,
                        "texture": texture,
                        "colour": colour,
                    },
                )


def render(shape: str, texture: str, colour: str, size: int, rng: np.random.Generator) -> Image.Image:
    """An image of `size` x `size` pixels; where the texture has holes, the background is seen."""
    ink = draw_shape(shape, size, rng) * draw_texture(texture, size, rng)
    pixels = ink[..., None] * np.array(_RGB[colour]) + (1 - ink[..., None]) * _GREY
    return Image.fromarray(np.rint(255 * pixels).astype(np.uint8))


def draw_shape(name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel the shape covers, `[size, size]`, at a random angle and place."""
    angle = math.radians(rng.uniform(-_ANGLE, _ANGLE))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    polygons = [_SIDE * np.array(corners) @ turn.T for corners in _polygons(name)]
    corners = np.concatenate(polygons)
    place = rng.uniform(-corners.min(axis=0), 1 - corners.max(axis=0))  # all of it within the image
    canvas = Image.new("L", (_FINE * size, _FINE * size))
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon([tuple(p) for p in (polygon + place) * _FINE * size], fill=255)
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float64) / 255


def _polygons(name: str) -> list[list[tuple[float, float]]]:
    """Corners (x, y), y downwards, within the square from -1/2 to 1/2."""
    h, t = 1 / 2, 1 / 6
    if name == "square":
        return [_box(-h, -h, h, h)]
    if name == "circle":
        return [_around(64, [h])]
    if name == "triangle":
        return [[(0, -h), (h, h), (-h, h)]]
    if name == "plus":
        return [_box(-h, -t, h, t), _box(-t, -h, t, h)]
    if name == "tee":
        return [_box(-h, -h, h, -t), _box(-t, -h, t, h)]
    if name == "rhombus":
        return [[(0, -h), (h, -h), (0, h), (-h, h)]]
    if name == "pentagon":
        return [_around(5, [h])]
    if name == "star":
        return [_around(10, [h, 0.4 * h])]
    if name == "trapezoid":
        return [[(-h, -h), (h, -h), (t, h), (-t, h)]]
    corners = [_box(x, y, x + 2 * t, y + 2 * t) for x in (-h, t) for y in (-h, t)]
    return [*corners, _box(-t, -t, t, t)]  # five squares


def _box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _around(count, radii):
    """Corners around the middle, the first on top, at the radii in turn."""
    angles = [2 * math.pi * i / count for i in range(count)]
    return [(r * math.sin(a), -r * math.cos(a)) for a, r in zip(angles, radii * count, strict=False)]


def draw_texture(name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """1 where the texture has ink, else 0, `[size, size]`, at a random angle and phase."""
    if name == "noise":
        return rng.integers(0, 2, (size, size)).astype(np.float64)
    period = max(_PERIOD * size, _SHORTEST_PERIOD)
    angle, phase = math.radians(rng.uniform(-_ANGLE, _ANGLE)), rng.uniform(0, 2, 2)
    y, x = np.mgrid[:size, :size] / period
    u = math.cos(angle) * x + math.sin(angle) * y + phase[0]
    v = math.cos(angle) * y - math.sin(angle) * x + phase[1]
    if name == "rain":
        return _rain(u, v, rng)
    return _pattern(name, u, v).astype(np.float64)


def _pattern(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where a regular texture has ink, at places `u`, `v` in periods."""
    line, thin = 0.3, 0.2  # widths of lines
    across, down = np.mod(u, 1), np.mod(v, 1)
    odd = np.mod(np.floor(v), 2) == 1
    if name == "solid":
        return np.ones_like(u, bool)
    if name == "stripes":
        return down < line
    if name == "grid":
        return (across < line) | (down < line)
    if name == "hexgrid":  # lines in three directions
        slanted = math.sqrt(3) / 2 * u
        return (down < thin) | (np.mod(slanted + v / 2, 1) < thin) | (np.mod(slanted - v / 2, 1) < thin)
    if name == "dots":
        return np.hypot(across - 0.5, down - 0.5) < 3 / 7
    if name == "triangles":
        return np.abs(across - 0.5) < down / 2
    if name == "zigzags":
        return np.mod(u + np.where(odd, 1 - down, down) / 2, 1) < 0.5
    across = np.where(odd, np.mod(u + 0.5, 1), across)  # pluses, each row moved by half a period
    bars = np.abs(across - 0.5), np.abs(down - 0.5)
    return (np.minimum(*bars) < line / 2) & (np.maximum(*bars) < 0.45)


def _rain(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Short strokes, one at a random height in most of the narrow columns of each period."""
    width, length = 0.2, 0.65
    column, row = np.floor(u / width).astype(int), np.floor(v).astype(int)
    column, row = column - column.min(), row - row.min()
    starts = rng.uniform(0, 1 - length, (column.max() + 1, row.max() + 1))
    there = rng.random(starts.shape) < 0.5
    height = np.mod(v, 1) - starts[column, row]
    return (there[column, row] & (height >= 0) & (height < length)).astype(np.float64)
