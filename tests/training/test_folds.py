"""K-fold cross-validation."""

import json

import numpy as np
import pytest
import tiny

from mmjax import config as config_lib
from mmjax.data import loading
from mmjax.errors import ConfigError
from mmjax.training import folds as folds_lib
from mmjax.training.folds import cross_validate, fold_config


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return tiny.without_fusion(tiny.plain_config(tiny.write_data(root / "images"), root / "data"))


def ids(source):
    return set(source.column("example_id"))


@pytest.mark.parametrize("group", ["", "text"])
def test_the_held_out_parts_are_disjoint_and_cover_the_training_data(plain, group):
    config = tiny.resolved(plain)
    loading.prepare(config.data)
    everything, held_out = ids(loading.load(config.data).train), []
    for fold in range(3):
        data = loading.load(fold_config(config, 3, fold, group).data)
        assert ids(data.train) | ids(data.eval["test"]) == everything
        assert not ids(data.train) & ids(data.eval["test"])
        assert ids(data.eval["test"])
        held_out += ids(data.eval["test"])
    assert sorted(held_out) == sorted(everything)


def test_a_group_is_in_one_fold(plain):
    config = tiny.resolved(plain, data__train__texts=["series"])
    loading.prepare(config.data)
    for fold in range(2):
        data = loading.load(fold_config(config, 2, fold, "series").data)
        assert not set(data.train.column("series")) & set(data.eval["test"].column("series"))


def test_the_rest_of_the_config_stays(plain):
    config = tiny.resolved(plain, data__eval__test__drop=["text"])
    found = fold_config(config, 2, 1, "")
    assert found.data.eval.test.drop == ["text"]
    assert found.model == config.model and found.optimizer == config.optimizer
    assert config.data.train.type == "manifest"  # the given one is not changed


def test_captions_stay_one_by_one_and_other_data_stays_as_it_is(plain):
    config = tiny.resolved(plain, data__eval__test__labels={"image_id": "record"})
    test = config_lib.to_dict(config.data.eval.test)
    for name, dataset in (
        ("captions", {"type": "explode", "dataset": test["dataset"], "feature": "captions"}),
        ("other", test["dataset"]),
    ):
        plain["data"]["eval"][name] = {**test, "dataset": dataset}
    try:
        found = fold_config(tiny.resolved(plain), 2, 1, "").data.eval
    finally:
        del plain["data"]["eval"]["captions"], plain["data"]["eval"]["other"]
    assert found.captions.dataset.type == "explode" and found.captions.dataset.dataset.type == "fold"
    assert found.test.dataset.type == "fold" and config_lib.to_dict(found.other.dataset) == test["dataset"]


def test_means_and_deviations_over_the_folds(plain, tmp_path, monkeypatch):
    metrics = iter([{"accuracy": 0.5, "auroc": 0.7}, {"accuracy": 0.75}, {"accuracy": 1.0, "auroc": 0.8}])
    trained = []

    def train(config, workdir):
        trained.append((config.data.train.fold, workdir.name))
        return {"metrics": next(metrics)}

    monkeypatch.setattr(folds_lib, "train", train)
    summary = cross_validate(tiny.resolved(plain), tmp_path, 3, "text")
    assert trained == [(0, "fold_0"), (1, "fold_1"), (2, "fold_2")]
    assert summary["accuracy"] == {"mean": 0.75, "std": 0.25, "folds": 3}
    assert summary["auroc"] == {"mean": 0.75, "std": pytest.approx(np.sqrt(0.005)), "folds": 2}
    written = json.loads((tmp_path / "folds.json").read_text())
    assert written == {"folds": 3, "group": "text", "metrics": summary}


@pytest.mark.parametrize(
    ("changes", "folds", "message"),
    [
        ({}, 1, "--folds=1: expected 2 or more"),
        ({"evals": {}}, 2, "--folds: data.eval and evals are needed"),
        ({"evals": {}, "data__eval": {}}, 2, "--folds: data.eval and evals are needed"),
    ],
)
def test_what_cannot_be_validated(plain, tmp_path, changes, folds, message):
    with pytest.raises(ConfigError, match=message):
        cross_validate(tiny.resolved(plain, **changes), tmp_path / "folds", folds)
    assert not (tmp_path / "folds").exists()


def test_the_directory_of_a_single_run_is_refused(plain, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a single run"):
        cross_validate(tiny.resolved(plain), tmp_path, 2)


@pytest.mark.slow
def test_folds_are_trained_and_not_trained_again(plain, tmp_path):
    config = tiny.resolved(plain, total_steps=3, checkpoint={})
    with tiny.on_devices(1):
        summary = cross_validate(config, tmp_path, 2)
    assert summary["classification/colour_logits/accuracy"]["folds"] == 2
    seen = [json.loads((tmp_path / f"fold_{i}" / "data.json").read_text())["fingerprints"] for i in range(2)]
    assert seen[0]["train"] == seen[1]["test"] and seen[0]["test"] == seen[1]["train"]
    assert seen[0]["train"] != seen[0]["test"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmjax.training.loop.create_state", None)  # a second start would need it
        assert cross_validate(config, tmp_path, 2) == summary
