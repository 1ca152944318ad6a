"""Data sets: each knows how to `prepare` itself once and how to `open` a split as a `Source`."""

from __future__ import annotations

from mmjax.data.datasets.av_digits import AvDigits
from mmjax.data.datasets.explode import Explode
from mmjax.data.datasets.fold import Fold
from mmjax.data.datasets.manifest import Manifest
from mmjax.data.datasets.mixture import Mixture
from mmjax.data.datasets.mnist1d import Mnist1d
from mmjax.data.datasets.openmoji import OpenMoji
from mmjax.data.datasets.public import Tfds
from mmjax.data.datasets.sort_of_clevr import SortOfClevr
from mmjax.data.datasets.trifeature import Trifeature

DATASETS = {
    "av_digits": AvDigits,
    "explode": Explode,
    "fold": Fold,
    "manifest": Manifest,
    "mixture": Mixture,
    "mnist1d": Mnist1d,
    "openmoji": OpenMoji,
    "sort_of_clevr": SortOfClevr,
    "tfds": Tfds,
    "trifeature": Trifeature,
}
