"""Transforms for any modality."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from mmjax.data.transforms.base import fail, present_values, require, require_array


@dataclasses.dataclass(frozen=True)
class Choose:
    """One of a list of values at random, each equally likely; missing ones (None) never.

    For streams that name several features, and for features that hold a list (captions). Lists in
    the list are taken apart first.
    """

    def __call__(self, value: Any, rng: np.random.Generator) -> Any:
        candidates = present_values(self, value)
        return candidates[int(rng.integers(len(candidates)))]


@dataclasses.dataclass(frozen=True)
class First:
    """The first value of a list that is not missing (None)."""

    def __call__(self, value: Any, rng: np.random.Generator) -> Any:
        return present_values(self, value)[0]


@dataclasses.dataclass(frozen=True)
class Pad:
    """Pads the first axis to a fixed length, with the mask of what is real.

    `[l, ...]` becomes `{'value': [length, ...], 'mask': bool [length]}`.

    Attributes:
      length: the fixed length; a longer input is an error, so that nothing is cut unseen.
      value: what the padding holds; behind the mask it has no effect.
      side: where the padding stands.
    """

    length: int
    value: float = 0.0
    side: Literal["right", "left"] = "right"

    def __post_init__(self):
        require(self, "length", self.length > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        array = require_array(self, value, 1, "an array [l, ...] (token ids, or frames)")
        missing = self.length - len(array)
        if missing < 0:
            cut = "cut it before (tokenize.max_length, random_crop_frames), or raise pad.length"
            raise fail(self, value, f"at most {self.length} along the first axis; {cut}")
        before, after = (0, missing) if self.side == "right" else (missing, 0)
        widths = [(before, after)] + [(0, 0)] * (array.ndim - 1)
        padded = np.pad(array, widths, constant_values=self.value)
        place = np.arange(self.length)
        return {"value": padded, "mask": (place >= before) & (place < self.length - after)}


@dataclasses.dataclass(frozen=True)
class Normalise:
    """`(x - mean) / std` per channel (the last axis), as float32.

    uint8 input is first scaled from 0..255 to 0..1; mean and std are in those units.

    Attributes:
      mean, std: one number for all channels, or one for each.
    """

    mean: list[float]
    std: list[float]

    def __post_init__(self):
        require(self, "std", bool(self.std) and all(s > 0 for s in self.std), "numbers above 0")
        require(self, "mean", len(self.mean) == len(self.std), f"as many as std has, {len(self.std)}")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        what = "an array [..., C]" if len(self.mean) == 1 else f"an array [..., {len(self.mean)}]"
        array = require_array(self, value, 1, what)
        if len(self.mean) not in (1, array.shape[-1]):
            raise fail(self, value, what)
        # In one pass: (x / scale - mean) / std = x * (1 / (scale std)) - mean / std.
        scale = 255.0 if array.dtype == np.uint8 else 1.0
        std = np.asarray(self.std)
        factor, offset = (1 / (scale * std)).astype(np.float32), (self.mean / std).astype(np.float32)
        array = np.ascontiguousarray(array, np.float32)
        if len(factor) > 1 and array.ndim > 1:
            # Along whole rows of pixels, which is several times faster than along three channels.
            factor, offset = np.tile(factor, array.shape[-2]), np.tile(offset, array.shape[-2])
        rows = array.reshape(*array.shape[:-2], -1)
        return (rows * factor - offset).reshape(array.shape)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Adds normal noise to every number; a corruption for degraded-input tests.

    Attributes:
      std: standard deviation; for uint8 input (images) in units of the full range, 1 = 255, and
        the result is clipped to 0..255 (as in ImageNet-C, Hendrycks and Dietterich, 1903.12261).
    """

    std: float

    def __post_init__(self):
        require(self, "std", self.std >= 0, "0 or more")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        array = require_array(self, value, 1, "an array of uint8 or float")
        noise = rng.standard_normal(array.shape, np.float32) * np.float32(self.std)
        if array.dtype == np.uint8:
            return np.clip(np.rint(array + 255 * noise), 0, 255).astype(np.uint8)
        if array.dtype.kind != "f":
            raise fail(self, value, "an array of uint8 or float")
        return array.astype(np.float32) + noise


@dataclasses.dataclass(frozen=True)
class DropFrames:
    """Sets frames (places on the first axis) to zero, each with the same probability.

    The length stays, as when packets of a recording are lost.

    Attributes:
      fraction: probability that a frame is lost.
    """

    fraction: float

    def __post_init__(self):
        require(self, "fraction", 0 <= self.fraction <= 1, "0 to 1")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        array = require_array(self, value, 2, "frames [T, ...]")
        kept = rng.random(len(array)) >= self.fraction
        return array * kept.reshape(-1, *[1] * (array.ndim - 1)).astype(array.dtype)


@dataclasses.dataclass(frozen=True)
class RandomCropFrames:
    """A stretch of `length` frames from a random place; all of them where there are fewer.

    Frames are places on the first axis, so it crops a waveform `[T]`, features `[T, C]` and a video.
    """

    length: int

    def __post_init__(self):
        require(self, "length", self.length > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        array = require_array(self, value, 1, "frames [T, ...]")
        start = int(rng.integers(max(0, len(array) - self.length) + 1))
        return array[start : start + self.length]


@dataclasses.dataclass(frozen=True)
class CenterCropFrames:
    """The middle `length` frames (places on the first axis); all of them where there are fewer."""

    length: int

    def __post_init__(self):
        require(self, "length", self.length > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        array = require_array(self, value, 1, "frames [T, ...]")
        start = max(0, len(array) - self.length) // 2
        return array[start : start + self.length]


@dataclasses.dataclass(frozen=True)
class Truncate:
    """The first `length` frames (places on the first axis); all of them where there are fewer."""

    length: int

    def __post_init__(self):
        require(self, "length", self.length > 0, "more than 0")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        return require_array(self, value, 1, "frames [T, ...]")[: self.length]
