"""Transforms of text: `str` until `tokenize`, then token ids int32 `[l]`."""

from __future__ import annotations

import dataclasses
import html.parser
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from mmjax.components import suggestion
from mmjax.data.transforms.base import fail, present_values, require, transform_name
from mmjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class CleanText:
    """Unicode NFKC, runs of white space to one space, none at the ends.

    Attributes:
      lower: to lower case.
      strip_html: keeps only the text of HTML, with entities read and scripts and styles left out.
    """

    lower: bool = False
    strip_html: bool = False

    def __call__(self, value: Any, rng: np.random.Generator) -> str:
        if not isinstance(value, str):
            raise fail(self, value, "text (for a list, put choose or first before)")
        if self.strip_html:
            parser = _TextOfHtml()
            parser.feed(value)
            parser.close()
            value = "".join(parser.parts)
        text = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", value)).strip()
        return text.lower() if self.lower else text


class _TextOfHtml(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag, attrs):
        self._hidden += tag in ("script", "style")
        self.parts.append(" ")  # '<p>a</p><p>b</p>' is two words

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style") and self._hidden > 0
        self.parts.append(" ")

    def handle_data(self, data):
        if not self._hidden:
            self.parts.append(data)


@dataclasses.dataclass(frozen=True)
class JoinTexts:
    """Several texts to one, in their order; missing ones (None) are left out.

    For streams that name several features (a name, keywords, translations).

    Attributes:
      keep: probability of each text to stay, at least one always does; below 1 it augments.
      separator: put between them.
    """

    keep: float = 1.0
    separator: str = " "

    def __post_init__(self):
        require(self, "keep", 0 < self.keep <= 1, "more than 0, at most 1")

    def __call__(self, value: Any, rng: np.random.Generator) -> str:
        texts = present_values(self, value)
        if not all(isinstance(text, str) for text in texts):
            raise fail(self, value, "a list of texts")
        if self.keep < 1:
            kept = [text for text in texts if rng.random() < self.keep]
            texts = kept or [texts[int(rng.integers(len(texts)))]]
        return self.separator.join(texts)


@dataclasses.dataclass(frozen=True)
class Tokenize:
    """Text to token ids, int32 `[l]`, `l` at most `max_length`.

    Attributes:
      max_length: longest result, special tokens counted; what is over is cut from the text.
      start: token before the text: `bos` for a decoder, `cls` for a BERT-like encoder.
      end: token after the text: `eos` or `sep`.
      template: the special tokens are those that the tokenizer's own file puts around a text, as
        published models expect; instead of `start` and `end`.
      cut: which side of a text that is too long is cut.
      tokenizer: its name in `data.tokenizers`.
    """

    max_length: int
    start: Literal["none", "bos", "cls"] = "none"
    end: Literal["none", "eos", "sep"] = "none"
    template: bool = False
    cut: Literal["end", "start"] = "end"
    tokenizer: str = "default"
    bound: Any = None  # the tokenizer, set by `bind`

    def __post_init__(self):
        need = 1 + (self.start != "none") + (self.end != "none")
        require(self, "max_length", self.max_length >= need, f"{need} or more")
        own = self.start != "none" or self.end != "none"
        require(self, "template", not (self.template and own), "False together with start or end")

    def bind(self, tokenizers: Mapping[str, Any]) -> Tokenize:
        """The same transform with its tokenizer."""
        bound = dataclasses.replace(self, bound=_find(self, tokenizers))
        for field in ("start", "end"):
            bound._special(field)  # raises where the tokenizer has no such token
        return bound

    def __call__(self, value: Any, rng: np.random.Generator) -> np.ndarray:
        if not isinstance(value, str):
            raise fail(self, value, "text (for a list, put choose or first before)")
        if self.template:
            return np.asarray(self.bound.encode_with_template(value, self.max_length, self.cut), np.int32)
        before, after = self._special("start"), self._special("end")
        ids = list(self.bound.encode(value))
        over = max(0, len(ids) + len(before) + len(after) - self.max_length)
        ids = ids[over:] if self.cut == "start" else ids[: len(ids) - over]
        return np.asarray([*before, *ids, *after], np.int32)

    def _special(self, field):
        name = getattr(self, field)
        return [] if name == "none" else [_special_id(self, self.bound, field, name)]


@dataclasses.dataclass(frozen=True)
class MaskTokens:
    """Hides tokens for masked language modelling; comes after `pad`.

    BERT (1810.04805, section 3.1): of the real tokens that are not special, `rate` (at least one)
    become targets; of these 80% are replaced by the mask token, 10% by a random token that is not
    special, 10% stay. With `max_span` above 1, targets are whole spans as in SpanBERT (1907.10529,
    section 3.1): lengths geometric with p = 0.2, at most `max_span`, starts uniform, until `rate` is
    reached; a span is treated as one in the 80/10/10 choice. The last span is cut to the budget.

    Adds 'targets', int32 `[L]`: the true token where it is a target, -1 elsewhere.

    Attributes:
      rate: fraction of tokens that become targets.
      max_span: longest span in tokens; 1 masks single tokens, SpanBERT uses 10.
      tokenizer: its name in `data.tokenizers`.
    """

    rate: float = 0.15
    max_span: int = 1
    tokenizer: str = "default"
    vocabulary: Any = None  # set by `bind`

    def __post_init__(self):
        require(self, "rate", 0 < self.rate <= 1, "above 0, up to 1")
        require(self, "max_span", self.max_span >= 1, "1 or more")

    def bind(self, tokenizers: Mapping[str, Any]) -> MaskTokens:
        """The same transform with its tokenizer."""
        tokenizer = _find(self, tokenizers)
        mask_id = _special_id(self, tokenizer, "tokenizer", "mask")
        return dataclasses.replace(
            self, vocabulary=_Vocabulary(tokenizer.vocab_size, mask_id, special_ids(tokenizer))
        )

    def __call__(self, value: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        if not isinstance(value, dict) or "mask" not in value or value["value"].dtype.kind != "i":
            raise fail(self, value, "token ids with their mask; put tokenize and pad before")
        ids = value["value"].copy()
        candidates = np.flatnonzero(value["mask"] & ~np.isin(ids, self.vocabulary.special))
        targets = np.full_like(ids, -1)
        for span in self._spans(candidates, rng):
            targets[span] = ids[span]
            draw = rng.random()
            if draw < 0.8:
                ids[span] = self.vocabulary.mask
            elif draw < 0.9:
                ids[span] = self._random_ids(len(span), rng)
        return {**value, "value": ids, "targets": targets}

    def _random_ids(self, count, rng):
        """Ids that are not special, each equally likely: ranks among them, moved past the special ones."""
        special = self.vocabulary.special
        drawn = rng.integers(self.vocabulary.size - len(special), size=count)
        for id_ in special:  # in ascending order
            drawn += drawn >= id_
        return drawn

    def _spans(self, candidates, rng):
        """Positions of each span, disjoint; together `rate` of the candidates."""
        if not len(candidates):
            return []
        budget = max(1, round(self.rate * len(candidates)))
        if self.max_span == 1:
            return [[i] for i in rng.choice(candidates, budget, replace=False)]
        spans, free = [], np.ones(len(candidates), bool)
        while budget:
            start = rng.choice(np.flatnonzero(free))
            length = min(int(rng.geometric(0.2)), self.max_span, budget)
            stop = start + 1
            while stop < min(start + length, len(free)) and free[stop]:
                stop += 1
            free[start:stop] = False
            spans.append(candidates[start:stop])
            budget -= int(stop - start)
        return spans


@dataclasses.dataclass(frozen=True)
class _Vocabulary:
    """What `mask_tokens` needs of a tokenizer."""

    size: int
    mask: int
    special: list[int]


def special_ids(tokenizer: Any) -> list[int]:
    """Ids of the tokenizer's special tokens, as far as it has them, in ascending order."""
    names = ("pad", "bos", "eos", "unk", "mask", "cls", "sep")
    found = (getattr(tokenizer, f"{name}_id", None) for name in names)
    return sorted({i for i in found if i is not None})


def _find(transform, tokenizers):
    name = transform.tokenizer
    if name not in tokenizers:
        known = ", ".join(sorted(tokenizers)) or "nothing"
        raise ConfigError(
            f"{transform_name(transform)}.tokenizer: got '{name}'{suggestion(name, tokenizers)}; "
            f"data.tokenizers has: {known}"
        )
    return tokenizers[name]


def _special_id(transform, tokenizer, field, name):
    found = getattr(tokenizer, f"{name}_id", None)
    if found is None:
        raise ConfigError(
            f"{transform_name(transform)}.{field}: the tokenizer '{transform.tokenizer}' has no "
            f"{name} token; choose a tokenizer that has one"
        )
    return found
