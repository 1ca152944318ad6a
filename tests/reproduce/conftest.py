import json

import pytest
from PIL import Image

from mmjax.reproduce import Row, experiment


@pytest.fixture
def digests(monkeypatch):
    """As if every row's config were the one it was measured with; there are no files."""
    monkeypatch.setattr(Row, "config_digest", lambda row: "digest")


@pytest.fixture
def place(monkeypatch, tmp_path):
    """The folder of an experiment 'colours', instead of the committed ones."""
    monkeypatch.setattr(experiment, "EXPERIMENTS", tmp_path / "experiments")
    folder = tmp_path / "experiments" / "colours"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def config_file(tmp_path):
    """A config that trains two steps on eight small images."""
    rows = []
    for i in range(8):
        Image.new("L", (8, 8), 30 * i).save(tmp_path / f"{i}.png")
        rows.append({"image": f"{i}.png", "colour": ["dark", "light"][i // 4]})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"type": "manifest", "path": str(tmp_path / "rows.jsonl"), "labels": ["colour"]}
    transforms = [{"type": "decode_image"}, {"type": "normalise", "mean": [0.5], "std": [0.5]}]
    head = {"type": "classifier", "reads": "image", "label": "colour"}
    loss = {"type": "cross_entropy", "logits": "colour_logits", "label": "colour"}
    accuracy = {"type": "classification", "data": "all", "head": "colour_logits", "label": "colour"}
    config = {
        "batch_size": 8,
        "total_steps": 2,
        "data": {
            "dir": str(tmp_path / "prepared"),
            "train": data,
            "eval": {"all": {"dataset": data}},
            "streams": {"image": {"features": ["image"], "train": transforms, "eval": transforms}},
            "labels": {"colour": "colour"},
        },
        "model": {
            "streams": {"image": {"kind": "image", "encoder": {"type": "cnn", "widths": [4]}}},
            "heads": {"colour_logits": head},
        },
        "objectives": {"colour": loss},
        "optimizer": {"method": {"type": "sgd"}, "schedule": {"type": "constant", "peak": 0.1}},
        "log": {"tensorboard": False},
        "evals": {"colour": accuracy},
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    return file
