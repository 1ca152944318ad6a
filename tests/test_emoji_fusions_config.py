"""Fusions of drawings and descriptions of emoji: each row of the table is a config whose parts fit."""

import pathlib

import numpy as np
import pytest

from mmjax import config
from mmjax.errors import ConfigError
from mmjax.model import build_model, fill_from_data, output_shapes
from mmjax.reproduce import experiment

FILE = pathlib.Path(__file__).parent.parent / "configs" / "emoji_fusions.py"
SPEC = {
    "image": ((32, 32, 3), np.float32),
    "text": ((24,), np.int32),
    "text_mask": ((24,), np.bool_),
    "group_id": ((), np.int32),
}


def resolve(fusion: str) -> dict:
    return config.to_dict(config.resolve(f"{FILE}:fusion={fusion}"))


@pytest.mark.parametrize("fusion", [row.name for row in experiment.load("fusions_emoji").rows])
def test_the_parts_fit(fusion):
    resolved = fill_from_data(resolve(fusion), {"text": 99}, {"group_id": 10})
    streams = {fusion} & {"image", "text"} or {"image", "text"}
    assert set(resolved["model"]["streams"]) == set(resolved["data"]["streams"]) == streams
    assert set(resolved["evals"]) == {"test"} | {f"{s}_missing" for s in streams if len(streams) > 1}
    spec = {name: value for name, value in SPEC.items() if name.split("_")[0] in {*streams, "group"}}
    assert output_shapes(build_model(resolved, spec), spec, batch=4)["group"].shape == (4, 10)


def test_rows_share_encoders_and_training():
    whole = resolve("concat")
    for row in experiment.load("fusions_emoji").rows:
        other = resolve(row.name)
        assert other["optimizer"] == whole["optimizer"] and other["total_epochs"] == whole["total_epochs"]
        for name, stream in other["model"]["streams"].items():
            assert stream == whole["model"]["streams"][name]
            assert other["data"]["streams"][name] == whole["data"]["streams"][name]


def test_an_unknown_fusion_is_refused():
    with pytest.raises(ConfigError, match="argument fusion: got 'sum', expected one of: concat, gated"):
        resolve("sum")
