"""Builds and runs transforms by name, as a config does."""

import numpy as np

from mmjax import components


def make(name, **fields):
    """The transform of that name, built from a config."""
    spec = components.normalise({"type": name, **fields}, components.component("transforms"), "t")
    return components.build("transforms", spec)


def run(name, value, /, seed=0, **fields):
    """What the transform makes of `value`, with a generator of that seed."""
    return make(name, **fields)(value, np.random.default_rng(seed))
