"""Shapes of a batch from the config alone: those of the data, or a message that says what is missing."""

import copy
import pathlib

import pytest
import tiny

from mmjax import config as config_lib
from mmjax.data import loading
from mmjax.data.pipeline import TrainPipeline
from mmjax.errors import ConfigError
from mmjax.planning import stand_in

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def spec(config, loaded):
    plain = config_lib.to_dict(config)
    pipeline = TrainPipeline(loaded.train, plain["data"], batch_size=8, seed=0, tokenizers=loaded.tokenizers)
    return pipeline.spec()


def plain_config(folder):
    plain = tiny.plain_config(folder / "rows.jsonl", folder / "prepared")
    plain["data"]["streams"]["image"]["train"].insert(1, {"type": "resize", "size": 8})
    plain["data"]["train"]["class_names"] = {"colour": list(tiny.COLOURS)}
    plain["data"]["eval"]["test"]["dataset"]["class_names"] = {"colour": list(tiny.COLOURS)}
    return plain


def test_the_shapes_are_those_of_the_data(tmp_path):
    plain = plain_config(tmp_path / "data")
    made_up = stand_in.load(tiny.resolved(plain))
    assert any("not prepared on this machine" in note for note in made_up.notes)
    assert any("data.tokenizers.default: 60 entries, the most" in note for note in made_up.notes)
    assert made_up.tokenizers["default"].vocab_size == 60
    assert made_up.loaded.class_names == {"colour": list(tiny.COLOURS)}

    tiny.write_data(tmp_path / "data")
    config = tiny.resolved(plain)
    loading.prepare(config["data"])
    real = stand_in.load(config)
    assert real.notes == []
    assert spec(config, real.loaded) == spec(config, made_up.loaded)


def test_a_shape_that_the_data_decides(tmp_path):
    plain = plain_config(tmp_path)
    del plain["data"]["streams"]["image"]["train"][1]
    message = r"does not fix the shape of 'image': a small example gives \[480, 640, 3\], a large one \[768"
    with pytest.raises(ConfigError, match=message):
        stand_in.load(tiny.resolved(plain))


def test_a_stream_of_which_nothing_is_known(tmp_path):
    plain = plain_config(tmp_path)
    plain["data"]["streams"]["image"]["train"] = plain["data"]["streams"]["image"]["train"][2:]
    message = "streams.image.train: begins with 'random_flip', which does not say what the data's image is"
    with pytest.raises(ConfigError, match=message):
        stand_in.load(tiny.resolved(plain))


def test_classes_that_only_the_data_knows(tmp_path):
    plain = plain_config(tmp_path)
    for data in (plain["data"]["train"], plain["data"]["eval"]["test"]["dataset"]):
        data |= {"labels": [], "multi_labels": ["colour"], "class_names": {}}
    with pytest.raises(ConfigError, match="the config does not say how many classes 'colour' has"):
        stand_in.load(tiny.resolved(plain))
    counted = copy.deepcopy(plain)
    counted["model"]["heads"]["colour_logits"]["num_classes"] = 7
    config = tiny.resolved(counted)
    assert spec(config, stand_in.load(config).loaded)["colour"] == ((7,), "float32")


IMAGE, TEXT = ((224, 224, 3), "float32"), ((64,), "int32")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("siglip.py:img=B/16,data=pairs.jsonl", {"image": IMAGE, "text": TEXT}),
        ("clip.py:img=L/14,data=pairs.jsonl", {"image": IMAGE, "text": ((77,), "int32")}),
        ("imagebind.py:size=full,data=rows.jsonl", {"audio": ((204, 128), "float32")}),
        ("resnet50_bert_concat.py:size=full,data=posts.jsonl,label=topic", {"text": ((128,), "int32")}),
    ],
)
def test_full_size_configs_without_their_data(reference, expected):
    config = config_lib.resolve(str(CONFIGS / reference))
    found = spec(config, stand_in.load(config).loaded)
    assert {name: found[name] for name in expected} == expected
