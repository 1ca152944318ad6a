"""Random changes of images `[..., height, width, C]` of uint8: augmentation and corruption.

Leading axes (the frames of a video) share the random parameters.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mmjax.data.transforms.base import require
from mmjax.data.transforms.image_ops import crop, is_range, per_image, random_box, require_image


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Mirrors left-right (`horizontal`) or top-bottom (`vertical`) with a probability."""

    probability: float = 0.5
    axis: Literal["horizontal", "vertical"] = "horizontal"

    def __post_init__(self):
        require(self, "probability", 0 <= self.probability <= 1, "0 to 1")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        require_image(self, value)
        if rng.random() >= self.probability:
            return value
        return np.flip(value, -2 if self.axis == "horizontal" else -3)


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Random brightness, contrast and saturation, in random order, as in SimCLR (2002.05709).

    Each factor is uniform in `[max(0, 1 - strength), 1 + strength]`; 1 leaves the image as it is.

    Attributes:
      brightness, contrast, saturation: strengths, 0 or more.
      probability: how often any of it is done.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    probability: float = 1.0

    def __post_init__(self):
        for field in ("brightness", "contrast", "saturation"):
            require(self, field, getattr(self, field) >= 0, "0 or more")
        require(self, "probability", 0 <= self.probability <= 1, "0 to 1")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        image = require_image(self, value)
        steps = [
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Color, self.saturation),
        ]
        if rng.random() >= self.probability:
            return image
        order = rng.permutation(len(steps))
        factors = [rng.uniform(max(0.0, 1 - strength), 1 + strength) for _, strength in steps]

        def jitter(frame: Image.Image) -> Image.Image:
            for i in order:
                frame = steps[i][0](frame).enhance(factors[i])
            return frame

        return per_image(jitter, image)


@dataclasses.dataclass(frozen=True)
class RandomGrayscale:
    """Takes the colours off with a probability; the number of channels stays.

    Attributes:
      probability: how often.
    """

    probability: float = 0.2

    def __post_init__(self):
        require(self, "probability", 0 <= self.probability <= 1, "0 to 1")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        image = require_image(self, value)
        if rng.random() >= self.probability:
            return image
        return per_image(lambda frame: ImageEnhance.Color(frame).enhance(0.0), image)


@dataclasses.dataclass(frozen=True)
class RandomBlur:
    """Blurs with a Gaussian with a probability, as in SimCLR (2002.05709).

    Attributes:
      sigma: smallest and largest standard deviation in pixels, one of which is drawn evenly.
      probability: how often.
    """

    sigma: list[float]
    probability: float = 0.5

    def __post_init__(self):
        require(self, "sigma", is_range(self.sigma), "[smallest, largest] above 0")
        require(self, "probability", 0 <= self.probability <= 1, "0 to 1")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        image = require_image(self, value)
        if rng.random() >= self.probability:
            return image
        blur = ImageFilter.GaussianBlur(rng.uniform(*self.sigma))
        return per_image(lambda frame: frame.filter(blur), image)


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """`num_layers` operations drawn at random, all of one strength (Cubuk et al. 2019, 1909.13719).

    The fourteen operations of the paper's section 3. Their strength grows linearly with `magnitude`,
    up to the ranges of AutoAugment (1805.09501, table 6) at 30: shear 0.3, translation 150/331 of the
    side, rotation 30 degrees, factors of colour, contrast, brightness and sharpness 1 +- 0.9,
    posterising to 4 bits, solarising from 0. Operations with a sign take it at random.

    Attributes:
      num_layers: operations one after the other (N in the paper).
      magnitude: strength, 0 to 30 (M in the paper).
      fill: grey level of pixels that come in from outside.
    """

    num_layers: int = 2
    magnitude: int = 9
    fill: int = 128

    def __post_init__(self):
        require(self, "num_layers", self.num_layers >= 0, "0 or more")
        require(self, "magnitude", 0 <= self.magnitude <= 30, "0 to 30")
        require(self, "fill", 0 <= self.fill <= 255, "0 to 255")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        image = require_image(self, value)
        strength = self.magnitude / 30
        names = rng.choice(list(_OPERATIONS), self.num_layers)
        signed = [strength if rng.random() < 0.5 else -strength for _ in names]

        def augment(frame: Image.Image) -> Image.Image:
            for name, amount in zip(names, signed, strict=True):
                frame = _OPERATIONS[name](frame, amount, self.fill)
            return frame

        return per_image(augment, image)


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Fills a random rectangle with random pixels (Zhong et al. 2017, 1708.04896).

    Attributes:
      probability: how often.
      scale: smallest and largest erased area, as a fraction of the image.
      ratio: smallest and largest width / height of the rectangle.
    """

    probability: float = 0.25
    scale: list[float] = dataclasses.field(default_factory=lambda: [0.02, 1 / 3])
    ratio: list[float] = dataclasses.field(default_factory=lambda: [0.3, 10 / 3])

    def __post_init__(self):
        require(self, "probability", 0 <= self.probability <= 1, "0 to 1")
        require(self, "scale", is_range(self.scale, 1.0), "[smallest, largest] in 0 to 1")
        require(self, "ratio", is_range(self.ratio), "[smallest, largest] above 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        image = require_image(self, value)
        if rng.random() >= self.probability:
            return image
        box = random_box(image, self.scale, self.ratio, rng)
        if box is None:  # no rectangle of these proportions fits, so there is nothing to erase
            return image
        image = image.copy()
        area = crop(image, *box)
        area[...] = rng.integers(0, 256, area.shape, np.uint8)
        return image


@dataclasses.dataclass(frozen=True)
class Occlude:
    """Covers a square at a random place; a corruption for degraded-input tests.

    Attributes:
      fraction: of the image's area that is covered. Once the square is as large as the shorter side
        it grows along the other one.
      value: the grey level it gets, 0 to 255.
    """

    fraction: float
    value: int = 0

    def __post_init__(self):
        require(self, "fraction", 0 <= self.fraction <= 1, "0 to 1")
        require(self, "value", 0 <= self.value <= 255, "0 to 255")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        height, width = require_image(self, value).shape[-3:-1]
        area = self.fraction * height * width
        side = min(round(math.sqrt(area)), height, width)
        longer = min(round(area / max(side, 1)), max(height, width))  # close to the area despite rounding
        box_h, box_w = (side, longer) if height <= width else (longer, side)
        top, left = int(rng.integers(height - box_h + 1)), int(rng.integers(width - box_w + 1))
        image = value.copy()
        crop(image, top, left, box_h, box_w)[...] = self.value
        return image


def _affine(matrix):
    """An operation that moves pixels: `matrix(amount, width, height)` maps output to input places."""

    def operation(image, amount, fill):
        colour = (fill,) * len(image.getbands())
        coefficients = matrix(amount, *image.size)
        return image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=colour)

    return operation


def _rotate(image, amount, fill):
    return image.rotate(30 * amount, fillcolor=(fill,) * len(image.getbands()))


def _enhance(kind):
    return lambda image, amount, fill: kind(image).enhance(1 + 0.9 * amount)


# name -> operation(image, amount in -1..1, fill). Those without a sign use the absolute amount.
_OPERATIONS = {
    "identity": lambda image, amount, fill: image,
    "auto_contrast": lambda image, amount, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, amount, fill: ImageOps.equalize(image),
    "rotate": _rotate,
    "solarize": lambda image, amount, fill: ImageOps.solarize(image, round(256 * (1 - abs(amount)))),
    "posterize": lambda image, amount, fill: ImageOps.posterize(image, 8 - round(4 * abs(amount))),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _affine(lambda amount, width, height: (1, 0.3 * amount, 0, 0, 1, 0)),
    "shear_y": _affine(lambda amount, width, height: (1, 0, 0, 0.3 * amount, 1, 0)),
    "translate_x": _affine(lambda amount, width, height: (1, 0, 150 / 331 * amount * width, 0, 1, 0)),
    "translate_y": _affine(lambda amount, width, height: (1, 0, 0, 0, 1, 150 / 331 * amount * height)),
}
