from __future__ import annotations

import pathlib

import numpy as np
import pytest
from PIL import Image

from mmjax.errors import ConfigError, DataError
from mmjax.inference.items import given_items, read_items, read_value

KINDS = {"image": "image", "text": "text", "sound": "audio"}


def test_single_values_and_lists_become_items():
    assert given_items({"text": "a"}, KINDS).values == [{"text": "a"}]
    items = given_items({"text": ["a", None], "image": ["x.png", "y.png"]}, KINDS)
    assert items.values == [{"text": "a", "image": "x.png"}, {"image": "y.png"}]
    assert items.names == ["0", "1"] and items.streams() == ["text", "image"]


def test_an_array_is_one_value():
    assert len(given_items({"image": np.zeros((4, 4, 3), np.uint8)}, KINDS).values) == 1


@pytest.mark.parametrize(
    "streams, message",
    [
        ({"imag": 1}, "no stream 'imag' (did you mean 'image'?); it has: image, text, sound"),
        ({"text": ["a"], "image": ["x", "y"]}, "got 1 of text, 2 of image"),
        ({}, "give at least one of: image, text, sound"),
    ],
)
def test_wrong_streams_are_named(streams, message):
    with pytest.raises(ConfigError) as error:
        given_items(streams, KINDS)
    assert message in str(error.value)


def test_an_item_with_nothing_is_refused():
    with pytest.raises(DataError, match="item 1: has no stream"):
        given_items({"text": ["a", None]}, KINDS)


def test_a_folder_gives_the_files_of_the_streams(tmp_path):
    for name in ("b.PNG", "deep/a.wav", "note.txt", "x.md", ".hidden/c.png", ".d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    items = read_items(tmp_path, KINDS)
    assert items.names == ["b.PNG", "deep/a.wav", "note.txt"]
    assert [list(values) for values in items.values] == [["image"], ["sound"], ["text"]]
    assert read_items(tmp_path / "b.PNG", KINDS).values == [{"image": tmp_path / "b.PNG"}]


def test_a_manifest_gives_its_lines(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"image": "a.png", "text": "x"}\n\n{"name": "two", "text": "y", "image": null}\n')
    items = read_items(file, KINDS)
    assert items.names == ["1", "two"]
    assert items.values == [{"image": tmp_path / "a.png", "text": "x"}, {"text": "y"}]


@pytest.mark.parametrize(
    "lines, error, message",
    [
        ("{", DataError, "line 1: is not JSON"),
        ("[]", DataError, "line 1: expected an object"),
        ('{"text": "a"}\n{"text": 3}', DataError, "line 2: 'text' is 3, expected text or null"),
        ('{"texts": "a"}', ConfigError, "did you mean 'text'?"),
        ('{"text": null}', DataError, "item 1: has no stream"),
        ("\n", DataError, "holds no lines"),
    ],
)
def test_wrong_manifests_are_told(tmp_path, lines, error, message):
    (tmp_path / "rows.jsonl").write_text(lines)
    with pytest.raises(error) as raised:
        read_items(tmp_path / "rows.jsonl", KINDS)
    assert message in str(raised.value)


def test_places_without_items_are_told(tmp_path):
    with pytest.raises(DataError, match="has no files for image"):
        read_items(tmp_path, KINDS)
    with pytest.raises(DataError, match="is no folder, no file, and no data set"):
        read_items(tmp_path / "none", KINDS)
    (tmp_path / "x.md").write_text("x")
    with pytest.raises(DataError, match="expected a folder, a manifest"):
        read_items(tmp_path / "x.md", KINDS)


def test_values_are_read_by_kind(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"bytes")
    assert read_value(str(file), "image") == b"bytes"
    assert read_value(file, "text") == "bytes"
    assert read_value("a", "text") == "a"
    assert read_value(b"x", "audio") == b"x"
    for mode, shape in (("RGB", (3, 5, 3)), ("L", (3, 5)), ("P", (3, 5, 4))):
        assert read_value(Image.new(mode, (5, 3)), "image").shape == shape


@pytest.mark.parametrize("path", ["none.png", "a\0b"])
def test_files_that_cannot_be_read_are_named(path):
    with pytest.raises(DataError, match="there is no file|cannot read"):
        read_value(path, "image")


def test_text_must_be_utf8(tmp_path: pathlib.Path):
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        read_value(tmp_path / "a.txt", "text")
