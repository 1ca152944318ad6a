"""ViT (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

from __future__ import annotations

from mmjax.errors import ConfigError
from mmjax.interop.family import (
    BASE_SIZES,
    Family,
    Settings,
    canonical_names,
    one_stream,
    only_encoder,
    qkv_bias,
    their_sizes,
)
from mmjax.interop.layouts import BlockNames, blocks, class_and_positions, conv, dense, norm, zero_pooler
from mmjax.interop.processors import image_transforms

DEFAULTS = {
    **BASE_SIZES,
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
# And what ViT and its autoencoder have besides.
FIELDS = {**PLAIN, "layer_scale": None, "registers": 0, "antialias": False}


def section(config, keys):
    """The encoder; the class token is pooled, through a linear layer and tanh where there is one."""
    given = Settings(config, DEFAULTS)
    given.expect("num_channels", 3)
    return one_stream("image", encoder(given, pooler=reads_pooler(given, keys)))


def encoder(given: Settings, **more) -> dict:
    """The section of a ViT with a class token."""
    return given.encoder("vit", **patches(given), attention_biases=given.attention_biases(), **more)


def patches(given: Settings) -> dict:
    """The size of patches, and how many pixels of the published image size they leave over."""
    patch = given["patch_size"]
    return {"patch_size": patch, "left_over": given.side("image_size") % patch}


def reads_pooler(given: Settings, keys) -> bool:
    """Whether the checkpoint has a pooler that is used; ConfigError where it is not linear and tanh."""
    if "pooler.dense.weight" not in keys or not given.get(POOLER, True):
        return False
    given.expect("pooler_act", "tanh")
    given.expect("pooler_output_size", given["hidden_size"])
    return True


def entries(section):
    """Every tensor."""
    part = section["streams"]["image"]["encoder"]
    return transformer(part, "image_encoder", "patch")


def transformer(part, path, patch):
    """The encoder at `path`, whose map of patches is called `patch`."""
    return [
        *embeddings(path, patch),
        *blocks(NAMES, path, part),
        *norm("layernorm", f"{path}/norm"),
        *(dense("pooler.dense", f"{path}/pooler/dense") if part["pooler"] else []),
    ]


def embeddings(path, patch):
    """Patches, class token and positions."""
    return [
        *conv("embeddings.patch_embeddings.projection", f"{path}/{patch}"),
        *class_and_positions(("embeddings.cls_token", "embeddings.position_embeddings"), path),
    ]


def inputs(config):
    """An image of the size the positions are for."""
    side = Settings(config, DEFAULTS).side("image_size")
    return {"image": ((side, side, 3), "float32")}


def export(section, shapes):
    """config.json."""
    part = only_encoder("ViT", section, "image", "vit", FIELDS)
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        **sizes(part, shapes),
        "qkv_bias": qkv_bias(part),
        **pooler_settings(part),
    }


def sizes(part, shapes):
    """What config.json says of the sizes of the encoder and its images."""
    side = square_grid(shapes["params/image_encoder/positions/table"])
    return {
        **their_sizes(part),
        "image_size": side * part["patch_size"] + part["left_over"],
        "patch_size": part["patch_size"],
        "num_channels": 3,
    }


def square_grid(table) -> int:
    """How many rows and columns a table of positions has, given its shape; ConfigError for an oblong."""
    rows, columns, _ = table
    if rows != columns:
        raise ConfigError(f"a grid of {rows} x {columns} positions, expected a square one")
    return rows


def pooler_settings(part):
    """What config.json says of the pooler."""
    if not part["pooler"]:
        return {POOLER: False}
    return {"pooler_act": "tanh", "pooler_output_size": part["width"]}


def constants(section):
    """A pooler of zeros where the model has none."""
    part = section["streams"]["image"]["encoder"]
    return {} if part["pooler"] else zero_pooler(part["width"])


def transforms(config, settings):
    """Their image processor."""
    del config
    return {"image": image_transforms(settings, PROCESSOR)}


canonical = canonical_names("vit.", unused=("classifier.", "decoder."))
FAMILY = Family(("vit",), section, entries, inputs, export, transforms, canonical, constants)
