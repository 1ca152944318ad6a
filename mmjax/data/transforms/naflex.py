"""Images of any proportions as patches (NaFlex; Tschannen et al. 2025, arXiv:2502.14786, section 2.4.2)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from mmjax.data.transforms.base import fail, require, require_array
from mmjax.data.transforms.image import Resampler
from mmjax.data.transforms.image_ops import require_image, resize

# The largest and the smallest factor that an image is resized by, and how closely it is found.
_LARGEST, _SMALLEST, _CLOSE = 100.0, 1e-6, 1e-5


@dataclasses.dataclass(frozen=True)
class ResizeToPatches:
    """To the largest size that has at most so many patches, nearly keeping the proportions.

    Height and width are multiples of the patch's side, rounded up. `[height, width, C]` uint8.

    Attributes:
      max_patches: how many patches.
      patch_size: their side in pixels.
      resampler: see `Resize`.
    """

    max_patches: int = 256
    patch_size: int = 16
    resampler: Resampler = "bilinear"

    def __post_init__(self):
        require(self, "max_patches", self.max_patches > 0, "more than 0")
        require(self, "patch_size", self.patch_size > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        rows, columns = self._grid(*require_image(self, value).shape[-3:-1])
        return resize(value, rows * self.patch_size, columns * self.patch_size, self.resampler)

    def _grid(self, height, width):
        """Rows and columns by bisection of the factor, as the published preprocessing finds them."""

        def patches(factor):
            return tuple(max(1, math.ceil(side * factor / self.patch_size)) for side in (height, width))

        low, high = _SMALLEST, _LARGEST
        while high - low >= _CLOSE:
            middle = (low + high) / 2
            rows, columns = patches(middle)
            low, high = (middle, high) if rows * columns <= self.max_patches else (low, middle)
        return patches(low)


@dataclasses.dataclass(frozen=True)
class NaflexPatches:
    """The patches of an image row by row, padded to a fixed number, with their mask and grid.

    `[height, width, C]` becomes `{'value': [length, p * p * C], 'mask': bool [length], 'grid': int32
    [2]}`; 'grid' is rows and columns, and the pixels of a patch stand row by row.

    Attributes:
      length: number of patches; more is an error, so that nothing is cut unseen.
      patch_size: p, their side in pixels; divides height and width.
    """

    length: int = 256
    patch_size: int = 16

    def __post_init__(self):
        require(self, "length", self.length > 0, "more than 0")
        require(self, "patch_size", self.patch_size > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        p = self.patch_size
        size = f"at most {self.length} patches of {p} x {p} pixels"
        what = f"[height, width, C] in {size}; resize_to_patches before"
        image = require_array(self, value, 3, what)
        if image.ndim != 3 or image.shape[0] % p or image.shape[1] % p:
            raise fail(self, value, what)
        rows, columns, channels = image.shape[0] // p, image.shape[1] // p, image.shape[2]
        count = rows * columns
        if not 0 < count <= self.length:
            raise fail(self, value, what)
        patches = image.reshape(rows, p, columns, p, channels).swapaxes(1, 2).reshape(count, -1)
        return {
            "value": np.pad(patches, ((0, self.length - count), (0, 0))),
            "mask": np.arange(self.length) < count,
            "grid": np.asarray([rows, columns], np.int32),
        }
