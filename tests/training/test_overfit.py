"""Whether a model can learn one batch."""

import os

import numpy as np
import pytest
import tiny

from mmjax.data.pipeline import TrainPipeline
from mmjax.errors import ConfigError, NonFiniteError
from mmjax.training.overfit import overfit_one_batch


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    plain = tiny.without_fusion(tiny.plain_config(tiny.write_data(root / "images"), root / "data"))
    return tiny.resolved(plain, optimizer__schedule={"type": "constant", "peak": 1e-2})


@pytest.fixture(scope="module", autouse=True)
def one_device():
    with tiny.on_devices(1):
        yield


def test_the_loss_of_one_batch_falls(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = []
    first, last = overfit_one_batch(config, 40, lambda step, values: shown.append((step, values)))
    assert [step for step, _ in shown] == [1, *range(4, 41, 4)]
    assert (first, last) == (shown[0][1]["loss"], shown[-1][1]["loss"])
    assert last < 0.5 * first
    assert shown[-1][1]["colour/accuracy"] > 0.9
    assert os.listdir(tmp_path) == []


def test_too_few_steps(config):
    with pytest.raises(ConfigError, match="--steps=1: expected 2 or more"):
        overfit_one_batch(config, 1, print)


def test_a_loss_that_is_not_finite(config, monkeypatch):
    batches = TrainPipeline.batches
    spoiled = lambda self, step: ({**b, "image": b["image"] * np.inf} for b in batches(self, step))  # noqa: E731
    monkeypatch.setattr(TrainPipeline, "batches", spoiled)
    with pytest.raises(NonFiniteError, match="step 1 on one batch: not finite: loss"):
        overfit_one_batch(config, 40, lambda step, values: None)
