"""Bimodal Trifeature: its combinations, what pairs share, and what the pictures show."""

import collections
import io

import numpy as np
import pytest
from PIL import Image

from mmjax.data.datasets import trifeature_builder as builder
from mmjax.data.datasets.trifeature import COLOURS, SHAPES, TEXTURES, Trifeature, partners
from mmjax.errors import ConfigError, DataError

SIZE = 32  # the smallest


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("trifeature")
    Trifeature(size=SIZE).prepare(data_dir)
    return data_dir


@pytest.fixture(scope="module")
def images(data_dir):
    """The images behind the pairs."""
    return {split: Trifeature(split, size=SIZE).open(data_dir)._images for split in ("train", "test")}


def pairs(data_dir, split="train", **settings):
    return Trifeature(split, size=SIZE, **settings).open(data_dir)


def test_every_combination_is_in_one_split(images):
    found = {
        split: collections.Counter((r["shape"], r["texture"], r["colour"]) for r in source)
        for split, source in images.items()
    }
    assert len(found["train"]) == 800 and set(found["train"].values()) == {3}
    assert len(found["test"]) == 200 and set(found["test"].values()) == {1}
    assert len(found["train"] | found["test"]) == 1000


def test_pairs_share_the_shape_and_nothing_else(data_dir):
    source = pairs(data_dir, pairs=6000)
    assert len(source) == 6000
    records = [source.select(["shape"])[i] for i in range(6000)]
    columns = {name: np.array([r[name] for r in records]) for name in records[0]}
    counts = np.bincount(columns["shape"], minlength=10)
    assert counts.min() > 450 and counts.max() < 750
    for name in ("texture", "colour"):
        same = (columns[f"{name}_first"] == columns[f"{name}_second"]).mean()
        assert 0.07 < same < 0.13  # a tenth, as if drawn at random
    assert 0.07 < columns["agreement"].mean() < 0.13
    joint = np.histogram2d(columns["texture_first"], columns["texture_second"], bins=10)[0]
    assert joint.min() > 20  # every two textures meet
    expected = partners()[columns["texture_first"]] == columns["colour_second"]
    np.testing.assert_array_equal(columns["agreement"] == 1, expected)


def test_no_pair_is_there_twice_and_they_are_the_same_every_time(data_dir):
    one, other = pairs(data_dir, pairs=500), pairs(data_dir, pairs=500)
    np.testing.assert_array_equal(one._pairs, other._pairs)
    assert one.fingerprint == other.fingerprint != pairs(data_dir, pairs=400).fingerprint
    assert len({tuple(pair) for pair in one._pairs.tolist()}) == 500
    assert (one._pairs[:, 0] != one._pairs[:, 1]).all()


@pytest.mark.parametrize(("agreeing", "share"), [("all", 1.0), ("half", 0.5)])
@pytest.mark.parametrize("split", ["train", "test"])
def test_agreement_is_as_told(data_dir, split, agreeing, share):
    source = pairs(data_dir, split, agreeing=agreeing, pairs=1000)
    assert np.mean(source.column("agreement")) == share
    assert 100 < len(source) <= 1000


def test_every_colour_goes_with_one_texture():
    assert sorted(partners().tolist()) == list(range(10))


def test_pictures_have_the_colour_and_differ_by_texture(data_dir):
    for record in list(pairs(data_dir, "test", pairs=60)):
        pixels = np.asarray(Image.open(io.BytesIO(record["first"])), int)
        assert pixels.shape == (SIZE, SIZE, 3)
        colour = np.rint(255 * np.array(builder._RGB[COLOURS[record["colour_first"]]]))
        inked = (np.abs(pixels - colour).max(axis=-1) <= 1).mean()
        grey = (np.abs(pixels - 127.5).max(axis=-1) < 1).mean()
        assert 0.01 < inked < 0.4 and grey > 0.5


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_lie_within_the_image_and_have_their_area(name):
    areas = []
    for seed in range(8):
        cover = builder.draw_shape(name, 112, np.random.default_rng(seed))
        edge = np.concatenate([cover[0], cover[-1], cover[:, 0], cover[:, -1]])
        assert cover.max() == 1 and (edge < 1).any()
        areas.append(cover.sum() / (112 * builder._SIDE) ** 2)
    expected = {"square": 1, "circle": np.pi / 4, "triangle": 1 / 2, "plus": 5 / 9, "tee": 5 / 9}
    expected |= {"rhombus": 1 / 2, "fivesquare": 5 / 9, "trapezoid": 2 / 3}
    expected |= {"pentagon": 0.594, "star": 0.294}  # half of sin(72 degrees) * 5 / 4, and its points
    np.testing.assert_allclose(areas, expected[name], rtol=0.06)


def test_textures_are_ten_different_ones_with_ink_and_holes():
    drawn = {name: builder.draw_texture(name, 64, np.random.default_rng(5)) for name in TEXTURES}
    assert drawn["solid"].all()
    for name, texture in drawn.items():
        assert set(np.unique(texture)) <= {0.0, 1.0}
        assert name == "solid" or 0.15 < texture.mean() < 0.75, name
    assert len({texture.tobytes() for texture in drawn.values()}) == 10


def test_an_image_depends_on_its_random_numbers_alone():
    images = [builder.render("star", "rain", "ocean", 48, np.random.default_rng(s)) for s in (1, 1, 2)]
    assert images[0].tobytes() == images[1].tobytes() != images[2].tobytes()


def test_wrong_settings(data_dir, tmp_path):
    with pytest.raises(ConfigError, match="trifeature.size: got 16, expected 32 pixels or more"):
        Trifeature(size=16)
    with pytest.raises(ConfigError, match="trifeature.pairs: got 1, expected 2 or more"):
        Trifeature(pairs=1)
    with pytest.raises(DataError, match="trifeature/32px/1.0.0: not prepared"):
        Trifeature(size=SIZE).open(tmp_path)
