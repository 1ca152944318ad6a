from __future__ import annotations

import base64
import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmjax.errors import DataError
from mmjax.reports import pictures


def png(pixels) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(stored, "PNG")
    return stored.getvalue()


def shown(markup) -> Image.Image:
    data = re.search(r'src="data:image/webp;base64,([^"]*)"', markup)[1]
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_small_picture_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    markup = pictures.picture(pictures.decode(png(pixels)), alt="x", side=96)
    np.testing.assert_array_equal(np.asarray(shown(markup).convert("RGB")), pixels)
    assert 'width="96" height="96"' in markup and "crisp" in markup


def test_a_large_picture_becomes_small():
    markup = pictures.picture(pictures.decode(png(np.zeros((900, 1800, 3)))), alt="x", side=96)
    assert shown(markup).size == (192, 96)


def test_base64_and_arrays_are_read_too():
    pixels = np.full((4, 6, 3), 7, np.uint8)
    text = base64.b64encode(png(pixels)).decode()
    for given in (text, f"data:image/png;base64,{text}", pixels, (pixels / 255.0).astype(np.float32)):
        np.testing.assert_array_equal(np.asarray(pictures.decode(given)), pixels)
    assert pictures.decode(np.zeros((5, 5, 1), np.uint8)).size == (5, 5)


@pytest.mark.parametrize("given", [b"", b"no picture", "%%%", "AAAA", np.zeros((2, 3, 7)), np.zeros((0, 3))])
def test_what_is_no_picture_is_refused(given):
    with pytest.raises(DataError, match="picture"):
        pictures.decode(given)


def test_a_decompression_bomb_is_refused_unopened():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="10000 x 10000"):
        pictures.decode(bomb)


def test_heat_is_hottest_where_the_weight_is():
    image = Image.new("RGBA", (64, 64))
    weights = np.zeros((4, 4))
    weights[0, 3] = 0.2
    hot = np.asarray(pictures.heat(image, weights, side=64)).astype(int).sum(-1)
    assert hot.shape == (64, 64)
    assert hot[2, 61] == hot.max() and hot[2, 61] > hot[61, 2] + 100
