from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFont

from mmjax.reports import gallery_picture
from mmjax.reports.gallery_picture import Card, draw

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250)]
CARDS = [Card(f"hit {i}", Image.new("RGB", (8, 8), colour), 0.9 - i / 10) for i, colour in enumerate(COLOURS)]


@pytest.fixture
def written(monkeypatch):
    """Every line that is drawn, with where and in which font."""
    lines = []
    original = gallery_picture.ImageDraw.ImageDraw.text

    def text(self, corner, line, **how):
        lines.append((line, corner, how["font"]))
        return original(self, corner, line, **how)

    monkeypatch.setattr(gallery_picture.ImageDraw.ImageDraw, "text", text)
    return lines


def centres(sheet, colours):
    """The middle (x, y) of each colour's area."""
    pixels = np.asarray(sheet)
    return [np.argwhere((pixels == colour).all(axis=-1)).mean(axis=0)[::-1] for colour in colours]


def test_hits_stand_in_rows_of_five_with_rank_score_and_title(written):
    places = centres(draw("Search in test", Card("a red fruit"), CARDS), COLOURS)
    xs, ys = np.transpose(places)
    assert (np.diff(xs[:5]) > 150).all() and np.ptp(ys[:5]) == 0
    assert xs[5] == xs[0] and ys[5] > ys[0] + 200
    lines = [line for line, _, _ in written]
    assert lines[:2] == ["Search in test", "“a red fruit”"]
    for i in range(6):
        assert {f"hit {i}", f"{i + 1}.", f"{0.9 - i / 10:.3f}"} <= set(lines)
    below = dict((line, corner) for line, corner, _ in written)
    assert all(below[f"hit {i}"][1] > ys[i] and abs(below[f"hit {i}"][0] - xs[i]) < 100 for i in range(6))


def test_a_query_by_image_stands_above_the_hits(written):
    orange = (250, 120, 0)
    sheet = draw("Search", Card("mine.png", Image.new("RGB", (300, 100), orange)), CARDS[:2])
    (_, asked), (_, first) = centres(sheet, [orange, COLOURS[0]])
    assert asked < first - 100 and "mine.png" in [line for line, _, _ in written]


def test_nothing_is_drawn_outside_the_picture_however_long_the_text(written):
    titles = ["word " * 60, "x" * 500, "", "日本 \n\t é", "a/very/long/path/" * 20]
    for image in (None, Image.new("RGB", (1, 900))):
        cards = [Card(title, image, -1.0) for title in titles]
        sheet = draw("h" * 400, Card(titles[1], image), cards)
        for line, (x, y), font in written:
            assert x >= 0 and x + font.getlength(line) <= sheet.width
            assert y >= 0 and y + font.size <= sheet.height
        assert any(line.endswith("…") for line, _, _ in written)
        written.clear()


def test_lines_are_broken_between_words_and_lose_nothing():
    font = ImageFont.load_default(15)
    lines = gallery_picture._wrapped("the quick brown fox jumps over the lazy dog", font, 100, 9)
    assert " ".join(lines) == "the quick brown fox jumps over the lazy dog"
    assert all(font.getlength(line) <= 100 for line in lines)
    assert "".join(gallery_picture._wrapped("x" * 60, font, 100, 9)) == "x" * 60


def test_no_hits_and_very_many(written):
    draw("Search", Card("q"), [])
    assert "nothing found" in [line for line, _, _ in written]
    sheet = draw("Search", Card("q"), [Card("same")] * 1000)
    assert sheet.height < 10_000 and "100." in [line for line, _, _ in written]
