import pathlib

import numpy as np
import outside
import pytest

from mmjax.data.datasets import mnist1d_builder
from mmjax.data.datasets.mnist1d import Mnist1d
from mmjax.errors import DataError

SPLITS = {"train": 4000, "test": 1000}


@pytest.fixture(scope="module")
def wheels_dir(tmp_path_factory):
    return outside.download(tmp_path_factory.mktemp("wheels"), mnist1d_builder._PACKAGE.requirement)


@pytest.fixture(scope="module")
def records(wheels_dir, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("mnist1d")
    Mnist1d(wheels_dir=wheels_dir).prepare(data_dir)
    sources = {split: Mnist1d(split).open(data_dir) for split in SPLITS}
    assert all(source.class_names == {"label": list("0123456789")} for source in sources.values())
    # TFDS writes records in an order of its own.
    return {split: sorted(source, key=lambda r: r["example_id"]) for split, source in sources.items()}


def column(records, name):
    return np.array([record[name] for record in records])


def test_counts_and_classes(records):
    assert {split: len(found) for split, found in records.items()} == SPLITS
    ids = np.concatenate([column(records[split], "example_id") for split in SPLITS])
    np.testing.assert_array_equal(ids, np.arange(5000))
    labels = {split: column(records[split], "label") for split in SPLITS}
    # Classes are even in the whole and drawn at random between the splits.
    assert (np.bincount(np.concatenate([*labels.values()])) == 500).all()
    counts = np.bincount(labels["train"])
    assert len(counts) == 10 and counts.min() > 370 and counts.max() < 430


def test_signals_are_those_of_the_authors_package(records):
    """Numbers printed by `make_dataset` of mnist1d 0.0.2.post1."""
    np.testing.assert_array_equal(column(records["train"][:10], "label"), [2, 6, 4, 5, 6, 6, 6, 0, 3, 1])
    first = records["train"][0]["signal"]
    assert first.shape == (40, 1) and first.dtype == np.float32
    expected = [-0.33200567, -0.47191037, -0.77869708, -1.00974083, -0.88235257]
    np.testing.assert_allclose(first[:5, 0], expected, rtol=1e-6)
    signals = column(records["train"], "signal")
    np.testing.assert_allclose([signals.min(), signals.max()], [-5.479419, 4.533516], rtol=1e-6)


def test_together_they_are_standardised(records):
    signals = np.concatenate([column(records[split], "signal") for split in SPLITS]).astype(np.float64)
    np.testing.assert_allclose([signals.mean(), signals.std()], [0, 1], atol=1e-6)


def test_shuffled_signals_have_one_other_order(records):
    signals, shuffled = (column(records["test"], name)[..., 0] for name in ("signal", "shuffled"))
    order = [int(np.flatnonzero(signals[0] == sample)[0]) for sample in shuffled[0]]
    assert sorted(order) == list(range(40)) and order != sorted(order)
    np.testing.assert_array_equal(shuffled, signals[:, order])


def test_templates_end_where_they_begin(wheels_dir):
    templates = mnist1d_builder._templates(wheels_dir)
    assert templates.shape == (10, 12)
    np.testing.assert_allclose(templates[:, [0, -1]], 0, atol=1e-12)
    np.testing.assert_allclose(templates.std(axis=1), 1 / 6)


def test_a_wheel_without_templates_is_refused(monkeypatch):
    monkeypatch.setattr(mnist1d_builder.Wheel, "read", lambda *arguments: b"d0 = np.asarray([1, 2])")
    with pytest.raises(DataError, match=r"mnist1d/data.py holds no templates d0 to d9 \('d1'\)"):
        mnist1d_builder._templates("")


def test_not_prepared(tmp_path):
    with pytest.raises(DataError, match="mnist1d/1.0.0: not prepared"):
        Mnist1d().open(pathlib.Path(tmp_path))
