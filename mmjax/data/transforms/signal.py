"""Transforms of signals `[T, C]` by what may differ between two of one kind: place, level and slope."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mmjax.data.transforms.base import fail, require, require_array

_WHAT = "a signal [T], or [T, C], of 2 samples or more"


@dataclasses.dataclass(frozen=True)
class Detrend:
    """Takes the straight line that fits best, by least squares, off each channel; the mean is then 0."""

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        signal = _signal(self, value)
        time = _time(signal)
        slope = (signal * time).sum(axis=0) / np.square(time).sum()
        return signal - signal.mean(axis=0) - slope * time


@dataclasses.dataclass(frozen=True)
class RandomRoll:
    """Moves a signal by a random number of samples; what leaves at the end comes in at the start.

    Attributes:
      longest: most samples it moves; none is its length less one, so that each place is equally likely.
    """

    longest: int | None = None

    def __post_init__(self):
        require(self, "longest", self.longest is None or self.longest >= 0, "0 or more, or none")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        signal = _signal(self, value)
        longest = len(signal) - 1 if self.longest is None else self.longest
        return np.roll(signal, int(rng.integers(longest + 1)), axis=0)


@dataclasses.dataclass(frozen=True)
class RandomTrend:
    """Adds a straight line `slope * t + offset`, t in samples from the middle, one for each channel.

    Attributes:
      offset: standard deviation of the normal offset.
      slope: standard deviation of the normal slope, per sample.
    """

    offset: float
    slope: float

    def __post_init__(self):
        require(self, "offset", self.offset >= 0, "0 or more")
        require(self, "slope", self.slope >= 0, "0 or more")

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        signal = _signal(self, value)
        offset, slope = (
            rng.standard_normal(signal.shape[1:], np.float32) * np.float32(deviation)
            for deviation in (self.offset, self.slope)
        )
        return signal + offset + slope * _time(signal)


def _signal(transform: Any, value: Any) -> np.ndarray:
    signal = require_array(transform, value, 1, _WHAT)
    if len(signal) < 2:
        raise fail(transform, value, _WHAT)
    return signal.astype(np.float32)


def _time(signal: np.ndarray) -> np.ndarray:
    """The place of each sample, from the middle, `[T]` or `[T, 1]`."""
    time = np.arange(len(signal), dtype=np.float32) - np.float32((len(signal) - 1) / 2)
    return time.reshape(-1, *[1] * (signal.ndim - 1))
