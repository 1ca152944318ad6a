"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193), without and with registers (Darcet et al. 2023,
arXiv:2309.16588)."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmjax.errors import ConfigError
from mmjax.interop.families import clip, vit
from mmjax.interop.family import (
    Family,
    Settings,
    canonical_names,
    check_fields,
    one_stream,
    only_encoder,
    qkv_bias,
)
from mmjax.interop.layouts import blocks, norm, same
from mmjax.interop.processors import IMAGENET, image_transforms

DEFAULTS = {
    **vit.DEFAULTS,
    "mlp_ratio": 4,
    "layer_norm_eps": 1e-6,
    "patch_size": 14,
    "layerscale_value": 1.0,
    "use_swiglu_ffn": False,
    "num_register_tokens": 0,
    "apply_layernorm": True,
}
PROCESSOR = {
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    **IMAGENET,
}
# Of the class of their processor, which the published files change.
BIT = clip.PROCESSOR
NAMES = dataclasses.replace(vit.NAMES, attention_norm="norm1", mlp_norm="norm2", up="mlp.fc1", down="mlp.fc2")


def section(config, keys):
    """The encoder; the class token is pooled."""
    del keys
    registers = config.get("model_type") == "dinov2_with_registers"
    given = Settings(config, DEFAULTS | ({"num_register_tokens": 4} if registers else {}))
    given.expect("num_channels", 3)
    given.expect("use_swiglu_ffn", False)
    given = Settings({**given, "intermediate_size": given["hidden_size"] * given["mlp_ratio"]}, {})
    part = vit.encoder(
        given,
        layer_scale=float(given["layerscale_value"]),
        registers=given["num_register_tokens"] if registers else 0,
        antialias=registers,
    )
    return one_stream("image", part)


def entries(section):
    """Every tensor."""
    part, path = section["streams"]["image"]["encoder"], "image_encoder"
    found = vit.embeddings(path, "patch") + blocks(NAMES, path, part) + norm("layernorm", f"{path}/norm")
    if part["registers"]:
        found += same("embeddings.register_tokens", f"{path}/registers", (1, part["registers"], -1))
    for i in range(part["depth"]):
        for theirs, ours in (("layer_scale1", "attention_residual"), ("layer_scale2", "mlp_residual")):
            scale = f"{path}/blocks_{i}/{ours}/layer_scale/scale"
            found += same(f"encoder.layer.{i}.{theirs}.lambda1", scale)
    return found


def export(section, shapes):
    """config.json."""
    part = only_encoder("DINOv2", section, "image", "vit", vit.PLAIN | {"pooler": False})
    check_fields("DINOv2", part, {"antialias": part["registers"] > 0})
    if part["layer_scale"] is None:
        raise ConfigError("DINOv2 has layer_scale, this model none")
    if part["mlp_width"] % part["width"]:
        raise ConfigError(f"mlp_width {part['mlp_width']}: expected a multiple of the width {part['width']}")
    config = vit.sizes(part, shapes) | {
        "qkv_bias": qkv_bias(part),
        "mlp_ratio": part["mlp_width"] // part["width"],
        "layerscale_value": part["layer_scale"],
    }
    del config["intermediate_size"]
    if not part["registers"]:
        return {"architectures": ["Dinov2Model"], "model_type": "dinov2", **config}
    return {
        "architectures": ["Dinov2WithRegistersModel"],
        "model_type": "dinov2_with_registers",
        "num_register_tokens": part["registers"],
        **config,
    }


def constants(section):
    """The token that stood for masked patches in pretraining, which nothing else reads."""
    width = section["streams"]["image"]["encoder"]["width"]
    return {"embeddings.mask_token": np.zeros((1, width), np.float32)}


def transforms(config, settings):
    """Their image processor, which is BiT's where its file leaves something out."""
    del config
    return {"image": image_transforms(settings, BIT if settings else PROCESSOR)}


canonical = canonical_names(
    "dinov2_with_registers.", "dinov2.", unused=("classifier.",), unused_ends=("mask_token",)
)
FAMILY = Family(
    ("dinov2", "dinov2_with_registers"),
    section,
    entries,
    vit.inputs,
    export,
    transforms,
    canonical,
    constants,
)
