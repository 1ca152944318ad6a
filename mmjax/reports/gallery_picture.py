"""A picture of what a query retrieved: the query, then the hits in their order, as pixels."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mmjax.reports.pictures import flatten

# The light colours of the report.
_GROUND, _CARD, _LINE, _INK, _SOFT = "#fbfbfa", "#ffffff", "#e4e4e0", "#1c1d21", "#6a6d76"
_COLUMNS = 5
_MARGIN, _GAP, _PADDING = 28, 14, 14
_SIDE = 176  # of the square that an image is fitted into
_CARD_WIDTH = _SIDE + 2 * _PADDING
_WIDTH = 2 * _MARGIN + _COLUMNS * _CARD_WIDTH + (_COLUMNS - 1) * _GAP
_LINES = 3  # of a title
_MOST = 100  # hits that are drawn


@dataclasses.dataclass(frozen=True)
class Card:
    """A query or a hit.

    Attributes:
      title: what it says or is called.
      image: None where it has none; its title then stands large in its place.
      score: of a hit.
    """

    title: str
    image: Image.Image | None = None
    score: float | None = None


def draw(heading: str, query: Card, hits: Sequence[Card]) -> Image.Image:
    """The query on top, and below it rows of five hits, each with rank, score and title.

    Args:
      heading: one line, above the query.
      query: what was asked for.
      hits: what was found, best first; the first 100 are drawn.

    Returns:
      An RGB picture 1132 pixels wide.
    """
    hits = hits[:_MOST]
    top = _MARGIN + 34 + (_SIDE if query.image else 40) + 2 * _GAP
    card_height = _SIDE + 2 * _PADDING + 30 + _LINES * 20
    rows = max(1, -(-len(hits) // _COLUMNS))
    sheet = Image.new("RGB", (_WIDTH, top + rows * (card_height + _GAP) - _GAP + _MARGIN), _GROUND)
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_MARGIN, _MARGIN), heading, 16, _SOFT, _WIDTH - 2 * _MARGIN, lines=1)
    _draw_query(sheet, pen, query)
    for i, hit in enumerate(hits):
        left = _MARGIN + i % _COLUMNS * (_CARD_WIDTH + _GAP)
        upper = top + i // _COLUMNS * (card_height + _GAP)
        box = (left, upper, left + _CARD_WIDTH - 1, upper + card_height - 1)
        pen.rounded_rectangle(box, radius=10, fill=_CARD, outline=_LINE)
        _draw_hit(sheet, pen, (left + _PADDING, upper + _PADDING), i + 1, hit)
    if not hits:
        _write(pen, (_MARGIN, top), "nothing found", 18, _SOFT, _SIDE, lines=1)
    return sheet


def _draw_query(sheet, pen, query):
    left, upper, width = _MARGIN, _MARGIN + 34, _WIDTH - 2 * _MARGIN
    if query.image is None:
        _write(pen, (left, upper), f"“{query.title}”", 26, _INK, width, lines=1)
        return
    _paste(sheet, query.image, (left, upper))
    _write(pen, (left + _SIDE + _GAP, upper), query.title, 18, _INK, width - _SIDE - _GAP, lines=4)


def _draw_hit(sheet, pen, corner, rank, hit):
    left, upper = corner
    below = upper + _SIDE + 10
    if hit.image is None:
        _write(pen, (left, upper), hit.title, 18, _INK, _SIDE, lines=7)
    else:
        _paste(sheet, hit.image, corner)
        _write(pen, (left, below + 26), hit.title, 15, _INK, _SIDE, lines=_LINES)
    _write(pen, (left, below), f"{rank}.", 17, _INK, _SIDE, lines=1, bold=True)
    if hit.score is not None:
        score = f"{hit.score:.3f}"
        indent = _SIDE - _font(15, False).getlength(score)
        _write(pen, (left + indent, below + 1), score, 15, _SOFT, _SIDE, lines=1)


def _paste(sheet, image, corner):
    """Fits an image into a square, small ones enlarged pixel by pixel."""
    scale = _SIDE / max(image.size)
    size = tuple(max(1, round(length * scale)) for length in image.size)
    sampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    shown = flatten(image).resize(size, sampling)
    sheet.paste(shown, tuple(c + (_SIDE - length) // 2 for c, length in zip(corner, size, strict=True)))


def _write(pen, corner, text, size, colour, width, *, lines, bold=False):
    font = _font(size, bold)
    left, upper = corner
    for i, line in enumerate(_wrapped(text, font, width, lines)):
        pen.text((left, upper + i * round(1.3 * size)), line, font=font, fill=colour)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float, lines: int) -> list[str]:
    """The text in lines that fit, broken between words, within one only where it is too long."""
    rest, found = " ".join(text.split()), []
    while rest and len(found) < lines:
        fits = _fitting(rest, font, width)
        end = fits
        if fits < len(rest) and " " in rest[: fits + 1]:
            end = rest.rindex(" ", 0, fits + 1)
        found.append(rest[:end])
        rest = rest[end:].lstrip()
    if rest:  # the end of the last line makes room for the ellipsis
        last = found[-1]
        while last and font.getlength(f"{last}…") > width:
            last = last[:-1]
        found[-1] = f"{last.rstrip()}…"
    return found


def _fitting(text, font, width) -> int:
    """How many characters fit, one at least."""
    end = min(len(text), 200)
    while end > 1 and font.getlength(text[:end]) > width:
        end -= 1
    return end


@functools.cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib; it has no Chinese, Japanese and Korean (shown as boxes)."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
