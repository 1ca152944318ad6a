"""Class names of labels, from training and from data sets of evaluation."""

import pytest
import tiny

from mmjax import config as config_lib
from mmjax.data import loading
from mmjax.errors import ConfigError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The `data` section of a config, prepared, with a second evaluation set whose series have names."""
    root = tmp_path_factory.mktemp("tiny")
    plain = tiny.plain_config(tiny.write_data(root / "images"), root / "data")
    test = plain["data"]["eval"]["test"]
    series = {"series": [f"series {i}" for i in range(8)]}
    named = {**test["dataset"], "labels": ["colour", "series"], "numbers": [], "class_names": series}
    plain["data"]["eval"]["other"] = {"dataset": named, "labels": {"series": "series"}}
    section = config_lib.to_dict(tiny.resolved(plain).data)
    loading.prepare(section)
    return section


def test_names_come_from_every_data_set(data):
    names = loading.load(data).class_names
    assert names["colour"] == sorted(tiny.COLOURS) and names["series"][0] == "series 0"


def test_one_label_has_one_list_of_classes(data):
    other = {**data["eval"]["other"], "labels": {"colour": "series"}}
    with pytest.raises(ConfigError, match="data.eval.other: 'colour' has other classes than in data.tr"):
        loading.load({**data, "eval": {**data["eval"], "other": other}})
