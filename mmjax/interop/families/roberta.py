"""RoBERTa (Liu et al. 2019, arXiv:1907.11692), and XLM-RoBERTa, which differs in its vocabulary only."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmjax.interop.families import bert
from mmjax.interop.family import Family, Settings, canonical_names, their_sizes
from mmjax.interop.layouts import Entry, Layout, blocks

# Positions count from here: their table begins with rows up to that of the padding token, id 1.
_FIRST = 2
DEFAULTS = {
    **bert.DEFAULTS,
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
}


@dataclasses.dataclass(frozen=True)
class _Positions(Layout):
    """A table whose first rows stand for padding; ours has none, since padding is masked."""

    def read(self, theirs, shapes):
        return [theirs[0][_FIRST:].reshape(shapes[0])]

    def write(self, ours):
        return [np.concatenate([np.zeros((_FIRST, ours[0].shape[1]), ours[0].dtype), ours[0]])]


def section(config, keys):
    """The encoder; with the pooler where the checkpoint has one, else the mean of the tokens."""
    given = Settings(config, DEFAULTS)
    given.expect("pad_token_id", _FIRST - 1)
    return bert.encoder_section(given, keys, given["max_position_embeddings"] - _FIRST)


def entries(section):
    """Every tensor."""
    part = section["streams"]["text"]["encoder"]
    key, path = "embeddings.position_embeddings.weight", "params/text_encoder/positions/table"
    positions = Entry((key,), (path,), _Positions())
    return [*bert.embeddings(), positions, *blocks(bert.NAMES, "text_encoder", part), *bert.pooler(part)]


def export(section, shapes):
    """config.json."""
    del shapes
    part = bert.check_bert("RoBERTa", section)
    return {
        "architectures": ["RobertaModel"],
        "model_type": "roberta",
        **their_sizes(part),
        "vocab_size": part["vocab_size"],
        "max_position_embeddings": part["max_length"] + _FIRST,
        "type_vocab_size": part["segments"],
        "pad_token_id": _FIRST - 1,
        **bert.own_pooling(part),
    }


def transforms(config, settings):
    """Their tokenizer's template, cut at the positions there are."""
    return bert.chain(Settings(config, DEFAULTS), settings, _FIRST)


canonical = canonical_names(
    "roberta.", unused=("lm_head.", "classifier.", "qa_outputs."), unused_ends=("position_ids",)
)
FAMILY = Family(
    ("roberta", "xlm-roberta"), section, entries, bert.inputs, export, transforms, canonical, bert.constants
)
