"""Writes MNIST-1D as a TFDS data set: draws its signals from the templates inside a wheel."""

from __future__ import annotations

import ast

import numpy as np
import scipy.ndimage
import tensorflow_datasets as tfds

from mmjax.data.datasets import mnist1d
from mmjax.data.wheels import Wheel
from mmjax.errors import DataError

_PACKAGE = Wheel(
    requirement="mnist1d==0.0.2.post1",
    file="mnist1d-0.0.2.post1-py3-none-any.whl",
    sha256="e780fadc12ab6e45994dcb02bbe728b347243e0a5d13790f2a86992500eceb86",
)

_SEED = 42
_PER_DIGIT = 500
_TRAIN = 4000  # of 5,000
_LENGTH = 40  # samples of a signal
_FEWEST_ZEROS, _MOST_ZEROS = 36, 60  # that follow a template
_SCALE = 0.4  # widest spread of the factor on a signal
_LONGEST_SHIFT = 48
_SMOOTH_NOISE, _WHITE_NOISE = 0.25, 0.02  # standard deviations; the first before it is smoothed
_SMOOTHING = 2.0  # standard deviation of the Gaussian window, in samples
_SHEAR = 0.75  # widest spread of the slope that is taken off

_CITATION = """@article{greydanus2020scaling,
  title = {Scaling down Deep Learning},
  author = {Greydanus, Sam and Kobak, Dmitry},
  journal = {arXiv preprint arXiv:2011.14439}, year = {2020},
}"""


class Mnist1dBuilder(tfds.core.GeneratorBasedBuilder):
    """Signals of 40 samples, of ten classes."""

    name = "mnist1d"
    VERSION = tfds.core.Version(mnist1d.VERSION)

    def __init__(self, wheels_dir: str = "", **kwargs):
        self._wheels_dir = wheels_dir
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        signal = tfds.features.Tensor(shape=(_LENGTH, 1), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description="MNIST-1D, drawn from its ten templates as the authors' package does with seed 42.",
            homepage="https://github.com/greydanus/mnist1d",
            citation=_CITATION,
            license="Apache-2.0",
            features=tfds.features.FeaturesDict(
                {
                    "example_id": np.int32,
                    "signal": signal,
                    "shuffled": signal,
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        signals, labels = draw(_templates(self._wheels_dir))
        return {
            "train": self._generate_examples(signals, labels, range(_TRAIN)),
            "test": self._generate_examples(signals, labels, range(_TRAIN, len(labels))),
        }

    def _generate_examples(self, signals, labels, ids):
        order = np.random.RandomState(_SEED).permutation(_LENGTH)
        for example_id in ids:
            signal = signals[example_id, :, None].astype(np.float32)
            yield (
                example_id,
                {
                    "example_id": example_id,
                    "signal": signal,
                    "shuffled": signal[order],
                    "label": labels[example_id],
                },
            )


def draw(templates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 signals of seed 42 (Greydanus and Kobak 2020, arXiv:2011.14439).

    Args:
      templates: from `_templates`, `[10, samples]`.

    Returns:
      signals float64 `[5000, 40]`, labels `[5000]`; the first 4,000 are for training.
    """
    rng = np.random.RandomState(_SEED)  # whose numbers numpy promises not to change
    labels = np.repeat(np.arange(len(templates)), _PER_DIGIT)
    signals = np.stack([_signal(templates[label], rng) for label in labels])
    order = rng.permutation(len(labels))
    signals, labels = signals[order], labels[order]
    return (signals - signals.mean()) / signals.std(), labels


def _signal(template: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """One signal `[40]`; every signal takes the same draws in the same order from `rng`."""
    zeros = _FEWEST_ZEROS + int(rng.rand() * (_MOST_ZEROS - _FEWEST_ZEROS + 1))
    marked = template + 1e-8  # so that no sample of the template is taken for the silence around it
    signal = _stretched(np.concatenate([marked, np.zeros(zeros)]), len(template) + _MOST_ZEROS)
    signal *= 1 + _SCALE * (rng.rand() - 0.5)
    signal = np.roll(signal, rng.choice(_LONGEST_SHIFT))
    smooth = scipy.ndimage.gaussian_filter(_SMOOTH_NOISE * rng.randn(len(signal)), _SMOOTHING)
    signal = np.where(signal == 0, smooth, signal) + _WHITE_NOISE * rng.randn(len(signal))
    signal -= _SHEAR * (rng.rand() - 0.5) * np.linspace(-0.5, 0.5, len(signal))
    return _stretched(signal, _LENGTH)


def _stretched(signal: np.ndarray, length: int) -> np.ndarray:
    """The signal at `length` even steps from its first to its last sample, linearly interpolated."""
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(signal)), signal)


def _templates(wheels_dir: str) -> np.ndarray:
    """The templates of the ten digits `[10, 12]`: of standard deviation 1 / 6, each starting at 0.

    They stand in the package as lists of numbers in `data.py`, which is parsed and not run.
    """
    source = _PACKAGE.read("mnist1d/data.py", wheels_dir)
    found = {}
    for node in ast.walk(ast.parse(source)):
        # d0 = np.asarray([5, 6, ...])
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value.args:
            (target,) = node.targets
            if isinstance(target, ast.Name) and isinstance(node.value.args[0], ast.List):
                found[target.id] = node.value.args[0]
    try:
        drawn = np.array([ast.literal_eval(found[f"d{digit}"]) for digit in range(10)], np.float64)
    except (KeyError, ValueError) as error:
        raise DataError(f"{_PACKAGE.file}: mnist1d/data.py holds no templates d0 to d9 ({error})") from None
    drawn -= drawn.mean(axis=1, keepdims=True)
    drawn /= drawn.std(axis=1, keepdims=True)
    return (drawn - drawn[:, :1]) / 6
