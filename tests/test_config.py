"""Configs from files and the command line, without any component built."""

from __future__ import annotations

import dataclasses
import json

import pytest
from ml_collections import ConfigDict

from mmjax import components, config
from mmjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Part:
    split: str = "train"
    peak: float = 0.1
    size: int = 32
    data: str = "test"


@pytest.fixture(autouse=True)
def rooms(monkeypatch):
    for room in components.ROOMS:
        monkeypatch.setitem(components.ROOMS, room, f"{__name__}:TABLE")


TABLE = {"part": Part}
PART = {"type": "part"}


def tiny(**changes) -> dict:
    base = {
        "total_steps": 3,
        "data": {
            "train": PART,
            "streams": {"image": {"features": ["image"], "train": [PART, PART]}},
            "eval": {"test": {"dataset": PART}},
        },
        "model": {"streams": {"image": {"kind": "image", "encoder": PART}}},
        "objectives": {"loss": PART},
        "optimizer": {"method": PART, "schedule": PART},
        "evals": {"accuracy": PART},
    }
    return base | changes


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(tiny()))
    return path


def test_a_resolved_config_is_a_config_and_gives_itself(file, tmp_path):
    resolved = config.resolve(str(file), {"seed": "7"})
    assert isinstance(resolved, ConfigDict) and resolved.seed == 7 and resolved.mesh.data == -1
    again = tmp_path / "again.json"
    again.write_text(config.to_json(resolved))
    assert config.to_dict(config.resolve(str(again))) == config.to_dict(resolved)


def test_overrides_reach_into_lists_and_sections_left_at_their_default(file):
    resolved = config.resolve(
        str(file),
        {"data.streams.image.train.1.size": "64", "mesh.fsdp": "2", "optimizer.schedule.peak": "1"},
    )
    assert [t["size"] for t in resolved.data.streams.image.train] == [32, 64]
    assert resolved.mesh.fsdp == 2 and resolved.optimizer.schedule.peak == 1.0


@pytest.mark.parametrize(
    ("overrides", "fragments"),
    [
        ({"optimizer.schedule.paek": "1"}, ["optimizer.schedule.paek", "did you mean 'peak'"]),
        ({"bacth_size": "1"}, ["bacth_size", "did you mean 'batch_size'"]),
        ({"batch_size": "many"}, ["batch_size", "many", "a whole number"]),
        ({"batch_size": "0"}, ["batch_size", "more than 0"]),
        ({"total_steps": "-1"}, ["total_steps: got -1", "expected 0 (trains nothing) or more"]),
        ({"total_epochs": "2"}, ["total_steps and total_epochs", "exactly one"]),
        ({"total_steps": "none"}, ["nothing", "exactly one"]),
        ({"data.streams.image.train.5.size": "64"}, ["index from 0 to 1"]),
        ({"evals.accuracy.data": "tset"}, ["evals.accuracy.data", "did you mean 'test'"]),
        ({"optimizer.frozen": '["("]'}, ["not a regular expression"]),
        ({"data.eval.test.drop": '["audio"]'}, ["data.eval.test", "'audio'", "image"]),
    ],
)
def test_wrong_overrides_end_in_one_line(file, overrides, fragments):
    with pytest.raises(ConfigError) as error:
        config.resolve(str(file), overrides)
    assert "\n" not in str(error.value)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_json_is_never_executed(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text("__import__('os').getcwd()")
    with pytest.raises(ConfigError, match="is not JSON"):
        config.resolve(str(path))


def test_a_python_config_takes_a_string_argument(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(
        "from mmjax import config\n"
        "def get_config(text=''):\n"
        "    a = config.arguments(text, res=32, variant='S', fast=False)\n"
        "    return {'a': a.res, 'b': a.variant, 'c': a.fast}\n"
    )
    assert config.load(f"{path}:res=64,variant=B/16,fast") == {"a": 64, "b": "B/16", "c": True}
    assert config.load(str(path)) == {"a": 32, "b": "S", "c": False}
    with pytest.raises(ConfigError, match="did you mean 'res'"):
        config.load(f"{path}:ress=3")


@pytest.mark.parametrize("reference", ["configs/quickstrat.py", "nowhere/x.json", "README.md"])
def test_a_missing_or_strange_file_is_named(reference):
    with pytest.raises(ConfigError, match=reference):
        config.resolve(reference)


def test_split_overrides():
    rest, overrides = config.split_overrides(
        ["--workdir=x", "--config.a.b=1=2", "--config.c", "3", "--config=f.py"]
    )
    assert rest == ["--workdir=x", "--config=f.py"] and overrides == {"a.b": "1=2", "c": "3"}
    with pytest.raises(ConfigError, match="no value"):
        config.split_overrides(["--config.a"])
    with pytest.raises(ConfigError, match="twice"):
        config.split_overrides(["--config.a=1", "--config.a=2"])


def test_difference_names_keys():
    assert config.difference({"a": {"b": 1}, "c": [1, 2]}, {"a": {"b": 2}, "c": [1, 3]}) == [
        "a.b: 1 -> 2",
        "c.1: 2 -> 3",
    ]
