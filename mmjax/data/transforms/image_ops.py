"""Functions on images `[..., height, width, C]` that the image transforms share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax.data.transforms.base import fail

_RESAMPLERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def require_image(transform: Any, value: Any) -> np.ndarray:
    """`value` as it is, if it is uint8 `[..., height, width, 1 or 3]`; else a `DataError`."""
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim < 3 or not value.size:
        raise fail(transform, value, "uint8 [..., height, width, C]: after decode_image, before normalise")
    if value.shape[-1] not in (1, 3):
        raise fail(transform, value, "1 or 3 channels on the last axis")
    return value


def per_image(function: Callable[[Image.Image], Image.Image], value: np.ndarray) -> np.ndarray:
    """Applies a function of Pillow images to each image of `[..., height, width, C]`."""
    grey = value.shape[-1] == 1
    frames = value.reshape(-1, *value.shape[-3:])
    done = [np.asarray(function(Image.fromarray(frame[..., 0] if grey else frame))) for frame in frames]
    stacked = np.stack(done)
    stacked = stacked[..., None] if grey else stacked
    return stacked.reshape(*value.shape[:-3], *stacked.shape[1:])


def resize(value: np.ndarray, height: int, width: int, resampler: str) -> np.ndarray:
    """`[..., h, w, C]` to `[..., height, width, C]`, antialiased; as it is when the size is right."""
    if value.shape[-3:-1] == (height, width):
        return value
    return per_image(lambda image: image.resize((width, height), _RESAMPLERS[resampler]), value)


def crop(value: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A view of a rectangle of `[..., h, w, C]`."""
    return value[..., top : top + height, left : left + width, :]


def random_box(
    value: np.ndarray, scale: Sequence[float], ratio: Sequence[float], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """A rectangle (top, left, height, width) of random area and proportions at a random place.

    The area is uniform in `scale` (a fraction of the image), the logarithm of width / height uniform
    over `ratio`. None after ten draws that do not fit into the image.
    """
    height, width = value.shape[-3:-1]
    for _ in range(10):
        area = rng.uniform(*scale) * height * width
        proportion = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_h, box_w = round(math.sqrt(area / proportion)), round(math.sqrt(area * proportion))
        if 0 < box_h <= height and 0 < box_w <= width:
            top, left = rng.integers(height - box_h + 1), rng.integers(width - box_w + 1)
            return int(top), int(left), box_h, box_w
    return None


def is_range(values: Sequence[float], limit: float = math.inf) -> bool:
    """Whether `values` is [smallest, largest], above 0 and at most `limit`."""
    return len(values) == 2 and 0 < values[0] <= values[1] <= limit
