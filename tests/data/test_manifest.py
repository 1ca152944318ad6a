import csv
import json
import pickle
import shutil

import av
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from PIL import Image

from mmjax import components
from mmjax.data.datasets import manifest_rows
from mmjax.data.datasets.manifest import Manifest
from mmjax.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path):
    """A directory with a few media files of each kind."""
    path = tmp_path / "mine"
    path.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8)).save(path / f"{i}.png")
    soundfile.write(path / "a.wav", rng.uniform(-0.1, 0.1, 800), 8000)
    with av.open(str(path / "v.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write(folder, rows, name="rows.jsonl"):
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def prepare(folder, rows, name="rows.jsonl", **settings):
    settings = {"path": write(folder, rows, name), "max_bad_fraction": 1.0} | settings
    Manifest(**settings).prepare(folder.parent / "data")
    return settings


def load(folder, rows, name="rows.jsonl", **settings):
    """Prepares and opens the rows of all splits."""
    settings = prepare(folder, rows, name, **settings)
    return Manifest(**{"split": "", **settings}).open(folder.parent / "data")


def bad_rows(folder):
    (path,) = (folder.parent / "data" / "manifest").rglob("*bad_rows.jsonl")
    return {row["row"]: row["reason"] for row in map(json.loads, path.read_text().splitlines())}


GOOD = [
    {"image": "0.png", "text": "zero", "kind": "b", "tags": "x|y", "score": 0.5, "split": "train"},
    {"image": "1.png", "text": "one", "kind": "a", "tags": "", "score": 1, "split": "train"},
    {"image": "2.png", "text": "zwei ä", "kind": "a", "tags": "y", "score": -2, "split": "test"},
]
LABELS = {"labels": ["kind"], "multi_labels": ["tags"], "numbers": ["score"]}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.tsv", "rows.parquet"])
def test_formats(folder, name):
    settings = prepare(folder, GOOD, name, **LABELS)
    train, test = (Manifest(**settings, split=s).open(folder.parent / "data") for s in ("train", "test"))
    assert train.class_names == test.class_names == {"kind": ["a", "b"], "tags": ["x", "y"]}
    assert train.column("text") == ["zero", "one"] and test.column("text") == ["zwei ä"]
    assert train.column("kind") == [1, 0] and test.column("kind") == [0]
    assert train.column("score") == [0.5, 1.0] and isinstance(train[1]["score"], float)
    np.testing.assert_array_equal(train.column("tags"), np.array([[1, 1], [0, 0]], np.float32), strict=True)
    assert train[1]["image"] == (folder / "1.png").read_bytes()
    assert train.column("example_id") == [0, 1] and test.column("example_id") == [2]


def test_every_modality_may_be_missing(folder):
    source = load(
        folder, [{"audio": "a.wav"}, {"video": "v.mp4", "text": "t"}, {"image": "0.png", "audio": None}]
    )
    assert [{key for key in source[i] if source[i][key] is not None} for i in range(3)] == [
        {"example_id", "audio"},
        {"example_id", "video", "text"},
        {"example_id", "image"},
    ]
    assert source[0].keys() == source[1].keys() == {"example_id", "image", "audio", "video", "text"}
    assert source[0]["audio"] == (folder / "a.wav").read_bytes()


def test_bad_rows_are_left_out_and_listed(folder):
    shutil.copy(folder / "0.png", folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:-30])
    (folder / "noise.wav").write_bytes(b"\x01\x02" * 500)
    (folder / "noise.mp4").write_bytes(b"\x01\x02" * 500)
    Image.new("L", (300, 200)).save(folder / "large.png")
    fine = {"text": "fine", "kind": "a", "score": 1}
    rows = [
        fine,
        fine | {"image": "cut.png"},
        fine | {"image": "none.png"},
        fine | {"audio": "noise.wav"},
        fine | {"video": "noise.mp4"},
        fine | {"video": "a.wav"},
        fine | {"image": "large.png"},
        fine | {"text": "  "},
        fine | {"text": 3},
        fine | {"text": None},
        fine | {"kind": None},
        fine | {"kind": "new", "split": "test"},
        fine | {"score": "much"},
        fine | {"score": None},
        fine | {"score": float("inf")},
        fine | {"split": ""},
        "{broken",
        "[1]",
        fine | {"image": "."},
        fine,
    ]
    source = load(folder, rows, labels=["kind"], numbers=["score"], max_image_pixels=50_000)
    assert source.column("example_id") == [0, 19]
    reasons = bad_rows(folder)
    expected = {
        1: "image: cut.png cannot be decoded",
        2: "image: no file none.png",
        3: "audio: noise.wav cannot be decoded",
        4: "video: noise.mp4 cannot be decoded",
        5: "video: a.wav has no video stream",
        6: "image: large.png has 300 x 200 pixels, more than 50000 in all",
        7: "text: is empty",
        8: "text: is not text",
        9: "has none of image, audio, video, text",
        10: "kind: is empty",
        11: "kind: unknown class 'new'",
        12: "score: 'much' is not a number",
        13: "score: is empty",
        14: "score: inf is not a number",
        15: "split: is empty",
        16: "is not JSON",
        17: "is not a JSON object",
        18: "image: . cannot be decoded",
    }
    assert reasons.keys() == expected.keys()
    for row, start in expected.items():
        assert reasons[row].startswith(start), reasons[row]


def test_decompression_bombs_are_not_decoded(folder, monkeypatch):
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    loaded = []
    monkeypatch.setattr(Image.Image, "load", lambda image: loaded.append(image.size))
    prepare(folder, [{"image": "bomb.png"}, {"image": "0.png"}])
    assert "more than 64000000" in bad_rows(folder)[0]
    assert (20_000, 20_000) not in loaded and loaded


def test_too_many_bad_rows_fail_and_the_list_says_which(folder):
    rows = [{"text": "fine"}] * 97 + [{"text": ""}] * 3
    with pytest.raises(
        DataError, match=r"3 of 100 rows are bad, more than max_bad_fraction=0.02 \(row 97: text"
    ):
        prepare(folder, rows, max_bad_fraction=0.02)
    assert list(bad_rows(folder)) == [97, 98, 99]
    with pytest.raises(DataError, match="not prepared"):
        Manifest(str(folder / "rows.jsonl")).open(folder.parent / "data")
    prepare(folder, rows, max_bad_fraction=0.03)
    with pytest.raises(DataError, match="more than max_bad_fraction=0.02"):  # also when prepared before
        prepare(folder, rows, max_bad_fraction=0.02)


def test_class_names(folder):
    rows = [{"text": "t", "kind": kind, "split": split} for kind, split in
            [(10, "train"), (9, "train"), (9, "test"), (8, "test")]]  # fmt: skip
    source = load(folder, rows, labels=["kind"])
    assert source.class_names == {"kind": ["9", "10"]}
    assert source.column("kind") == [1, 0, 0] and "unknown class '8'" in bad_rows(folder)[3]
    given = load(folder, rows, labels=["kind"], class_names={"kind": ["8", "9", "10"]})
    assert given.column("kind") == [2, 1, 1, 0]
    only_test = load(folder, rows[2:], labels=["kind"])
    assert only_test.class_names == {"kind": ["8", "9"]}


def test_class_names_in_cells():
    names = manifest_rows.class_names_in
    assert (
        names("label", "a|b") == ["a|b"] and names("label", 3.0) == ["3"] and names("label", True) == ["True"]
    )
    assert names("label", None) == names("label", " ") == names("multi_label", "") == []
    assert names("multi_label", " a | b|") == ["a", "b"] and names("multi_label", ["a|b", 2]) == ["a|b", "2"]
    assert manifest_rows.sort_names({"10", "9"}) == ["9", "10"]
    assert manifest_rows.sort_names({"10", "9", "x"}) == ["10", "9", "x"]


def test_further_columns(folder):
    rows = [{"left": "0.png", "right": "1.png", "en": "one", "de": "eins"}]
    source = load(folder, rows, images=["left", "right"], texts=["en", "de"])
    assert source[0]["right"] == (folder / "1.png").read_bytes() and source[0]["de"] == "eins"
    with pytest.raises(
        DataError, match=r"has no column 'rihgt' \(did you mean 'right'\?\); it has: de, en, left"
    ):
        load(folder, rows, images=["left", "rihgt"])
    with pytest.raises(DataError, match="has no column of media or text; .* it has: de, en, left, right"):
        load(folder, rows)


def test_select_leaves_media_alone(folder):
    source = load(folder, GOOD, **LABELS)
    for file in folder.glob("*.png"):
        file.unlink()
    assert source.column("text") == ["zero", "one", "zwei ä"]
    assert source.select(["kind"])[0] == {"example_id": 0, "kind": 1}
    assert pickle.loads(pickle.dumps(source)).column("kind") == [1, 0, 0]
    with pytest.raises(DataError, match="row 0: image 0.png is gone since it was prepared"):
        source[0]


def test_changed_media(folder):
    source = load(folder, GOOD[:1])
    source.verify()
    content = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(content + b"more")
    with pytest.raises(
        DataError, match=rf"row 0: image 0.png has {len(content) + 4} bytes, not {len(content)}"
    ):
        source[0]
    (folder / "0.png").write_bytes(content[:-1] + b"x")
    with pytest.raises(DataError, match="row 0: image 0.png has other content"):
        source.verify()


def test_fingerprint_is_the_content_not_the_place(folder, tmp_path):
    first = load(folder, GOOD, **LABELS)
    shutil.copytree(folder, tmp_path / "elsewhere" / "mine")
    moved = load(tmp_path / "elsewhere" / "mine", GOOD, **LABELS)
    assert moved.fingerprint == first.fingerprint
    Image.new("RGB", (5, 6)).save(tmp_path / "elsewhere" / "mine" / "0.png")
    shutil.rmtree(tmp_path / "elsewhere" / "data")
    assert load(tmp_path / "elsewhere" / "mine", GOOD, **LABELS).fingerprint != first.fingerprint
    others = [
        load(folder, GOOD[:2], **LABELS),
        load(folder, [GOOD[0] | {"text": "null"}, *GOOD[1:]], **LABELS),
        load(folder, GOOD, **LABELS | {"numbers": []}),
        load(folder, GOOD, **LABELS, class_names={"kind": ["b", "a"]}),
        load(folder, GOOD, **LABELS, split="train"),
    ]
    assert len({source.fingerprint for source in [first, *others]}) == 6


def test_preparing_again_does_nothing(folder):
    settings = prepare(folder, GOOD)
    (info,) = folder.parent.rglob("info.json")
    before = info.stat().st_mtime_ns
    (folder / "0.png").write_bytes(b"")  # would be a bad row
    Manifest(**settings).prepare(folder.parent / "data")
    assert info.stat().st_mtime_ns == before and not bad_rows(folder)


def test_files_that_cannot_be_read(folder):
    for name, content, message in [
        ("m.txt", b"", r"expected a file that ends in one of .jsonl, .csv"),
        ("m.parquet", b"no", "cannot be read"),
        ("m.jsonl", b"\xff\xfe", "cannot be read"),
        ("m.csv", b"", "has no rows"),
    ]:
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            Manifest(str(folder / name)).prepare(folder.parent / "data")
    with pytest.raises(DataError, match="manifest.path: no file"):
        Manifest(str(folder / "none.csv")).prepare(folder.parent / "data")


def test_unknown_split(folder):
    settings = prepare(folder, GOOD)
    with pytest.raises(
        DataError, match=r"no usable row is in split 'dev'; the splits are: train \(2\), test \(1\)"
    ):
        Manifest(**settings, split="dev").open(folder.parent / "data")


def test_config():
    spec = {"type": "manifest", "path": "a.csv", "labels": ["x"], "class_names": {"x": ["n", "y"]}}
    normal = components.normalise(spec, components.component("datasets"), "data")
    assert components.build("datasets", normal) == Manifest(
        "a.csv", labels=["x"], class_names={"x": ["n", "y"]}
    )
    with pytest.raises(ConfigError, match="column 'x' is named twice"):
        Manifest("a.csv", labels=["x"], numbers=["x"])
    with pytest.raises(ConfigError, match="class_names: 'y' is not in labels"):
        Manifest("a.csv", labels=["x"], class_names={"y": []})
    with pytest.raises(ConfigError, match="max_bad_fraction: got 2"):
        Manifest("a.csv", max_bad_fraction=2)
