from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mmjax import components
from mmjax.reports.records import Records


@pytest.fixture
def config(tmp_path):
    """Three rows, of which the first is bad, so that ids are not positions."""
    Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(tmp_path / "a.png")
    rows = [
        {"image": "missing.png", "text": "gone", "colour": "red", "tags": "round", "split": "train"},
        {"image": "a.png", "text": "a red ball", "colour": "red", "tags": "round|soft", "split": "train"},
        {"image": "a.png", "text": None, "colour": "blue", "tags": "", "split": "train"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {
        "type": "manifest",
        "path": str(tmp_path / "rows.jsonl"),
        "labels": ["colour"],
        "multi_labels": ["tags"],
        "max_bad_fraction": 0.9,
    }
    components.build("datasets", section).prepare(tmp_path / "data")
    kinds = {"image": "image", "text": "text"}
    return {
        "data": {
            "dir": str(tmp_path / "data"),
            "train": section,
            "eval": {},
            "streams": {name: {"features": [name]} for name in kinds},
            "labels": {"hue": "colour", "tags": "tags"},
        },
        "model": {"streams": {name: {"kind": kind} for name, kind in kinds.items()}},
    }


def test_a_record_is_called_by_its_text_else_by_its_classes(config):
    records = Records(config)
    assert records.text("train", 1) == "a red ball"
    assert records.text("train", 2) == "hue: blue"
    del config["model"]["streams"]["text"]
    assert records.text("train", 1) == "hue: red, tags: round, soft"


def test_the_image_of_a_record(config, tmp_path):
    assert Records(config).image("train", 1) == (tmp_path / "a.png").read_bytes()


def test_an_evaluation_set_without_text_and_with_its_own_label(config, tmp_path):
    rows = [{"image": "a.png", "species": name, "split": "train"} for name in ("owl", "cat")]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {"type": "manifest", "path": str(tmp_path / "other.jsonl"), "labels": ["species"]}
    components.build("datasets", section).prepare(tmp_path / "data")
    config["data"]["eval"]["other"] = {"dataset": section, "labels": {"animal": "species"}}
    assert Records(config).text("other", 0) == "animal: owl"


def test_what_is_not_there_has_neither(config):
    records = Records(config)
    for data, example_id in (("train", 0), ("train", 77), ("test", 1)):
        assert records.text(data, example_id) == "" and records.image(data, example_id) is None
