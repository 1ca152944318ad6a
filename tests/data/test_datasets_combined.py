"""Mixtures, folds and examples by value."""

import dataclasses
import pathlib

import numpy as np
import pytest

from mmjax import components
from mmjax.data.datasets import DATASETS
from mmjax.data.datasets.explode import Explode
from mmjax.data.datasets.fold import Fold
from mmjax.data.datasets.mixture import Mixture
from mmjax.data.source import ListSource
from mmjax.errors import ConfigError, DataError

HERE = pathlib.Path()


@dataclasses.dataclass(frozen=True)
class Letters:
    """Stands for a data set: `count` records in groups of three."""

    count: int = 60
    prepared: list = dataclasses.field(default_factory=list)

    def prepare(self, data_dir):
        self.prepared.append(data_dir)

    def open(self, data_dir):
        records = [{"speaker": f"s{i // 3}", "value": float(i), "nothing": None} for i in range(self.count)]
        return ListSource(records, f"letters{self.count}", {"speaker": ["s"]})


def ids(source):
    return source.column("example_id")


@pytest.mark.parametrize("group", ["", "speaker", "value"])
def test_folds_are_disjoint_and_cover(group):
    held_out = [Fold(Letters(), 4, i, held_out=True, group=group).open(HERE) for i in range(4)]
    rest = [Fold(Letters(), 4, i, group=group).open(HERE) for i in range(4)]
    assert sorted(i for fold in held_out for i in ids(fold)) == list(range(60))
    for inside, outside in zip(held_out, rest, strict=True):
        assert sorted(ids(inside) + ids(outside)) == list(range(60))
        assert ids(inside) == sorted(ids(inside)) and len(inside) < 35
        assert inside.class_names == {"speaker": ["s"]}
    assert len({source.fingerprint for source in held_out + rest}) == 8


def test_a_group_is_never_cut():
    folds = [Fold(Letters(), 3, i, held_out=True, group="speaker").open(HERE) for i in range(3)]
    speakers = [set(fold.column("speaker")) for fold in folds]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 20


def test_a_group_keeps_its_fold_when_the_data_grows():
    def fold_of(count):
        return set(Fold(Letters(count), 3, 1, held_out=True, group="speaker").open(HERE).column("speaker"))

    assert fold_of(60) == {speaker for speaker in fold_of(300) if int(speaker[1:]) < 20}


def test_folds_are_about_equal_and_the_seed_cuts_anew():
    sizes = [len(Fold(Letters(3000), 5, i, held_out=True).open(HERE)) for i in range(5)]
    assert np.ptp(sizes) < 120
    cuts = [ids(Fold(Letters(), 5, 0, held_out=True, seed=seed).open(HERE)) for seed in (0, 1)]
    assert cuts[0] != cuts[1]


def test_fold_errors():
    with pytest.raises(ConfigError, match="fold.folds: got 1"):
        Fold(Letters(), 1)
    with pytest.raises(ConfigError, match="fold.fold: got 5, expected 0 to 4"):
        Fold(Letters(), 5, 5)
    with pytest.raises(DataError, match="no record is in fold 0 of 50"):
        Fold(Letters(3), 50, 0, held_out=True, group="speaker").open(HERE)
    with pytest.raises(DataError, match="no feature 'speakr'"):
        Fold(Letters(), group="speakr").open(HERE)
    with pytest.raises(DataError, match="a record's 'nothing' is None, expected text or a number"):
        Fold(Letters(), group="nothing").open(HERE)


def test_mixture_draws_by_size_unless_told():
    parts = [Letters(3), Letters(6)]
    assert Mixture(parts).open(HERE).weights == [3.0, 6.0]
    assert Mixture(parts, [1.0, 1.0]).open(HERE).weights == [1.0, 1.0]
    assert len(Mixture(parts).open(HERE)) == 9


def test_preparing_prepares_the_parts():
    parts = [Letters(3), Letters(6)]
    Mixture([Fold(parts[0]), parts[1]]).prepare(HERE)
    assert [part.prepared for part in parts] == [[HERE], [HERE]]


def test_mixture_errors():
    with pytest.raises(ConfigError, match="mixture.sources: is empty"):
        Mixture([])
    with pytest.raises(ConfigError, match="mixture.weights: got 1 for 2 sources"):
        Mixture([Letters(), Letters()], [1.0])
    with pytest.raises(ConfigError, match="expected numbers above 0"):
        Mixture([Letters()], [0.0])


def test_nested_components_come_from_a_config():
    spec = {"type": "mixture", "sources": [{"type": "fold", "dataset": {"type": "openmoji"}, "fold": 2}]}
    normal = components.normalise(spec, components.component("datasets"), "data.train")
    built = components.build("datasets", normal)
    assert built == Mixture([Fold(DATASETS["openmoji"](), fold=2)], [])
    with pytest.raises(
        ConfigError, match=r"data.train.sources.0.dataset.type: got 'openmojy' \(did you mean"
    ):
        spec["sources"][0]["dataset"]["type"] = "openmojy"
        components.normalise(spec, components.component("datasets"), "data.train")


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Stands for a data set of pictures with 0 to 3 captions each."""

    counts: tuple = (2, 0, 3, 1)

    def prepare(self, data_dir):
        pass

    def open(self, data_dir):
        records = [
            {"image": f"i{i}", "captions": {"text": [f"{i} by {k}" for k in range(n)], "id": np.arange(n)}}
            for i, n in enumerate(self.counts)
        ]
        records[1]["captions"]["text"] = None
        return ListSource(records, "captioned")


def test_each_value_is_an_example():
    source = Explode(Captioned(), "captions.text").open(HERE)
    assert source.column("captions.text") == ["0 by 0", "0 by 1", "2 by 0", "2 by 1", "2 by 2", "3 by 0"]
    assert source.column("record") == [0, 0, 2, 2, 2, 3] and source.column("image")[2:4] == ["i2", "i2"]
    assert ids(source) == list(range(6)) and source.name == "captioned by captions.text"
    np.testing.assert_array_equal(source[3]["captions"]["id"], [0, 1, 2])  # other features stay whole
    assert source.column("captions.id")[0].tolist() == [0, 1]


def test_so_many_values_of_a_record_at_most():
    opened = [Explode(Captioned(), "captions.text", most).open(HERE) for most in (0, 2, 5)]
    assert [len(source) for source in opened] == [6, 5, 6]
    assert opened[1].column("captions.text")[-1] == "3 by 0"
    assert len({source.fingerprint for source in opened}) == 3


def test_explode_errors():
    with pytest.raises(ConfigError, match="explode.most: got -1, expected 0 or more"):
        Explode(Captioned(), "captions.text", -1)
    with pytest.raises(DataError, match="'image' of record 0 is str, expected a list"):
        Explode(Captioned(), "image").open(HERE)
    with pytest.raises(DataError, match="no feature 'captions.txt'.*did you mean 'captions.text'"):
        Explode(Captioned(), "captions.txt").open(HERE)
    with pytest.raises(DataError, match="captioned: no record has a value of 'captions.id'"):
        Explode(Captioned((0, 0)), "captions.id").open(HERE)
    with pytest.raises(DataError, match="has a feature 'record', which 'explode' would hide"):
        Explode(Explode(Captioned(), "captions.text"), "captions.id").open(HERE)[0]
