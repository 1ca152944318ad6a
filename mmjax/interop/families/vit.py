"""ViT (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

from __future__ import annotations

import numpy as np

from mmjax.errors import ConfigError
from mmjax.interop.family import Family, Settings, check_fields, one_stream, only_encoder, their_sizes
from mmjax.interop.layouts import BlockNames, ClassAndPositions, Entry, blocks, conv, dense, norm
from mmjax.interop.preprocess import image_transforms

DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
    "pooler_act": "tanh",
}
PROCESSOR = {
    "size": {"height": 224, "width": 224},
    "default_to_square": True,
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
# A key of our own in config.json, which transformers keeps and does not read.
POOLER = "mmjax_pooler"
NAMES = BlockNames(
    prefix="encoder.layer.{i}.",
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    out="attention.output.dense",
    attention_norm="layernorm_before",
    mlp_norm="layernorm_after",
    up="intermediate.dense",
    down="output.dense",
)
# What all of this kind have in common.
PLAIN = {
    "norm_position": "pre",
    "pre_norm": False,
    "patch_bias": True,
    "position": "learned",
    "final_norm": "all",
    "pooling": "cls",
}


def section(config, keys):
    """The encoder; the class token is pooled, through a linear layer and tanh where there is one."""
    given = Settings(config, DEFAULTS)
    given.expect("num_channels", 3)
    pooler = "pooler.dense.weight" in keys and given.get(POOLER, True)
    if pooler:
        given.expect("pooler_act", "tanh")
    return one_stream("image", encoder(given, pooler=pooler))


def encoder(given: Settings, **more) -> dict:
    """The section of a ViT with a class token."""
    biases = ["query", "key", "value", "out"] if given["qkv_bias"] else ["out"]
    return given.encoder("vit", **patches(given), attention_biases=biases, **more)


def patches(given: Settings) -> dict:
    """The size of patches, and how many pixels of the published image size they leave over."""
    patch = given["patch_size"]
    return {"patch_size": patch, "left_over": side(given["image_size"]) % patch}


def entries(section):
    """Every tensor."""
    part = section["streams"]["image"]["encoder"]
    pooler = dense("pooler.dense", "image_encoder/pooler/dense") if part["pooler"] else []
    return (
        embeddings() + blocks(NAMES, "image_encoder", part) + norm("layernorm", "image_encoder/norm") + pooler
    )


def embeddings():
    """Patches, class token and positions."""
    positions = Entry(
        ("embeddings.cls_token", "embeddings.position_embeddings"),
        ("params/image_encoder/cls", "params/image_encoder/positions/table"),
        ClassAndPositions(),
    )
    return [*conv("embeddings.patch_embeddings.projection", "image_encoder/patch"), positions]


def inputs(config):
    """An image of the size the positions are for."""
    size = side(Settings(config, DEFAULTS)["image_size"])
    return {"image": ((size, size, 3), "float32")}


def side(size) -> int:
    """One number for a square image's size."""
    if isinstance(size, int):
        return size
    if len(set(size)) != 1:
        raise ConfigError(f"weights: image_size is {list(size)}, expected a square")
    return size[0]


def export(section, shapes):
    """config.json."""
    part = only_encoder("ViT", section, "image", "vit")
    check_fields("ViT", part, PLAIN | {"layer_scale": None, "registers": 0, "antialias": False})
    theirs = {"pooler_act": "tanh", "pooler_output_size": part["width"]}
    pooler = theirs if part["pooler"] else {POOLER: False}
    return {"architectures": ["ViTModel"], "model_type": "vit", **sizes(part, shapes), **pooler}


def sizes(part, shapes):
    """What config.json says of the encoder."""
    rows, columns, _ = shapes["params/image_encoder/positions/table"]
    if rows != columns:
        raise ConfigError(f"a grid of {rows} x {columns} positions, expected a square one")
    biases = set(part["attention_biases"])
    if biases not in ({"query", "key", "value", "out"}, {"out"}):
        raise ConfigError(f"attention_biases {sorted(biases)}: expected all, or only out")
    return {
        **their_sizes(part),
        "image_size": rows * part["patch_size"] + part["left_over"],
        "patch_size": part["patch_size"],
        "num_channels": 3,
        "qkv_bias": "query" in biases,
    }


def constants(section):
    """Where nothing of ours is their pooler, one of zeros, without which it would not load strictly."""
    part = section["streams"]["image"]["encoder"]
    if part["pooler"]:
        return {}
    width = part["width"]
    zeros = {"weight": np.zeros((width, width), np.float32), "bias": np.zeros(width, np.float32)}
    return {f"pooler.dense.{name}": value for name, value in zeros.items()}


def canonical(key, config):
    """Without the prefix of models with heads."""
    del config
    key = key.removeprefix("vit.")
    return None if key.startswith(("classifier.", "decoder.")) else key


def transforms(config, settings):
    """Their image processor."""
    del config
    return {"image": image_transforms(settings, PROCESSOR)}


FAMILY = Family(("vit",), section, entries, inputs, export, transforms, canonical, constants)
