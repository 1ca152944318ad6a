"""MNIST-1D without labels: what its arguments change, and one step."""

import pathlib

import jax
import numpy as np
import pytest

from mmjax import components, config
from mmjax.errors import ConfigError
from mmjax.model import build_model, fill_from_data, init_model, output_shapes

FILE = pathlib.Path(__file__).parent.parent / "configs" / "mnist1d_contrastive.py"
SPEC = {name: ((40, 1), np.float32) for name in ("signal", "other")}


@pytest.mark.parametrize(("projector", "width"), [("true", 128), ("false", 125)])
@pytest.mark.parametrize(("negatives", "loss"), [("all", "nt_xent"), ("other", "infonce")])
def test_the_objective_compares_two_views_of_one_encoder(projector, width, negatives, loss):
    resolved = config.to_dict(config.resolve(f"{FILE}:projector={projector},negatives={negatives}"))
    assert resolved["objectives"]["contrast"]["type"] == loss
    model = build_model(fill_from_data(resolved, {}, {}), SPEC)
    shapes = output_shapes(model, SPEC)
    assert shapes["embedding"].shape == shapes["second/embedding"].shape == (2, width)
    assert shapes["signal/pooled"].shape == (2, 125)
    heads = [name for name in init_model(model, SPEC, jax.random.key(0))["params"] if name.endswith("_head")]
    assert heads == (["embedding_head"] if projector == "true" else [])


def test_the_views_differ_and_evaluation_reads_the_signal_as_it_is():
    streams = config.to_dict(config.resolve(str(FILE)))["data"]["streams"]
    assert [t["type"] for t in streams["signal"]["train"]] == ["detrend", "random_roll", "random_trend"]
    assert streams["signal"]["eval"] == [] and streams["signal"] == streams["other"]
    signal = np.sin(np.arange(40, dtype=np.float32))[:, None]
    made = []
    for seed in (0, 1):
        value, rng = signal, np.random.default_rng(seed)
        for transform in streams["signal"]["train"]:
            value = components.build("transforms", transform)(value, rng)
        made.append(value)
    assert made[0].shape == (40, 1) and np.abs(made[0] - made[1]).max() > 0.1


def test_wrong_negatives():
    with pytest.raises(ConfigError, match="argument negatives: got 'none', expected one of: all, other"):
        config.resolve(f"{FILE}:negatives=none")
