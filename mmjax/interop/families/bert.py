"""BERT (Devlin et al. 2018, arXiv:1810.04805), and sentence encoders made of it, such as MiniLM."""

from __future__ import annotations

from mmjax.errors import ConfigError
from mmjax.interop.family import (
    BASE_SIZES,
    Family,
    Settings,
    canonical_names,
    check_all_biases,
    one_stream,
    only_encoder,
    their_sizes,
)
from mmjax.interop.layouts import BlockNames, blocks, dense, norm, same, zero_pooler
from mmjax.interop.processors import text_transforms

DEFAULTS = {
    "vocab_size": 30522,
    **BASE_SIZES,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "is_decoder": False,
}
_FIELDS = {
    "norm_position": "post",
    "causal": False,
    "position": "learned",
    "attend_padding": False,
    "layer_scale": None,
}
# A key of our own in config.json, which transformers keeps and does not read.
POOLING = "mmjax_pooling"
NAMES = BlockNames(
    prefix="encoder.layer.{i}.",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    mlp_norm="output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
)


def section(config, keys):
    """The encoder; with BERT's pooler where the checkpoint has one, else the mean of the tokens."""
    given = Settings(config, DEFAULTS)
    return encoder_section(given, keys, given["max_position_embeddings"])


def encoder_section(given: Settings, keys, max_length: int) -> dict:
    """The model, with `max_length` positions; a sentence encoder pools as sentence-transformers says."""
    given.expect("position_embedding_type", "absolute")
    given.expect("is_decoder", False)
    sentence = given.get("sentence")
    own = sentence["pooling"] if sentence else given.get(POOLING)
    pooler = "pooler.dense.weight" in keys and not own
    pooling = own or ("cls" if pooler else "mean")
    encoder = given.encoder(
        "text_transformer",
        norm_position="post",
        vocab_size=given["vocab_size"],
        max_length=max_length,
        segments=given["type_vocab_size"],
        pooling=pooling,
        pooler="tanh" if pooler else "none",
    )
    section = one_stream("text", encoder)
    if sentence:
        normalise = sentence["normalise"]
        section["heads"]["text_embedding"] = {
            "type": "projection",
            "reads": "text",
            "width": 0,
            "normalise": normalise,
        }
    return section


def entries(section):
    """Every tensor."""
    part = section["streams"]["text"]["encoder"]
    return [
        *embeddings(),
        *same("embeddings.position_embeddings.weight", "text_encoder/positions/table"),
        *blocks(NAMES, "text_encoder", part),
        *pooler(part),
    ]


def embeddings():
    """The embeddings, without the positions."""
    path = "text_encoder"
    return [
        *same("embeddings.word_embeddings.weight", f"{path}/embedding/embedding"),
        *same("embeddings.token_type_embeddings.weight", f"{path}/segments"),
        *norm("embeddings.LayerNorm", f"{path}/embedding_norm"),
    ]


def pooler(part):
    """The pooler, where there is one."""
    return dense("pooler.dense", "text_encoder/pooler/dense") if part["pooler"] == "tanh" else []


def inputs(config):
    """A text of four tokens."""
    del config
    return {"text": ((4,), "int32")}


def export(section, shapes):
    """config.json."""
    del shapes
    part = check_bert("BERT", section)
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        **their_sizes(part),
        "vocab_size": part["vocab_size"],
        "max_position_embeddings": part["max_length"],
        "type_vocab_size": part["segments"],
        **own_pooling(part),
    }


def own_pooling(part):
    """Says in config.json how a model of ours pools that does not use their pooler."""
    return {} if part["pooler"] == "tanh" else {POOLING: part["pooling"]}


def check_bert(what, section):
    """The encoder; ConfigError where it is none of BERT's kind."""
    heads = {name: head for name, head in section["heads"].items() if head.get("width") != 0}
    part = only_encoder(what, {**section, "heads": heads}, "text", "text_transformer", _FIELDS)
    check_all_biases(what, part)
    if part["segments"] < 1:
        raise ConfigError(f"{what} has a table of segments, this model none")
    if part["pooler"] != "none" and (part["pooling"], part["pooler"]) != ("cls", "tanh"):
        raise ConfigError(f"{what} has no pooling '{part['pooling']}' with pooler '{part['pooler']}'")
    return part


def constants(section):
    """A pooler of zeros where the model has none."""
    part = section["streams"]["text"]["encoder"]
    return {} if part["pooler"] != "none" else zero_pooler(part["width"])


_without_heads = canonical_names(
    "bert.", unused=("cls.", "classifier.", "qa_outputs."), unused_ends=("position_ids",)
)


def canonical(key, config):
    """By today's names of the norms."""
    key = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return _without_heads(key, config)


def transforms(config, settings):
    """Their tokenizer's template, cut at the positions there are."""
    return chain(Settings(config, DEFAULTS), settings, 0)


def chain(given: Settings, settings, first: int):
    """The transforms, where positions count from `first`."""
    length = given["max_position_embeddings"] - first
    limit = (given.get("sentence") or {}).get("max_length")
    return {"text": text_transforms(settings, min(limit or length, length))}


FAMILY = Family(("bert",), section, entries, inputs, export, transforms, canonical, constants)
