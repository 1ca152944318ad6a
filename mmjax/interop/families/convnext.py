"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545)."""

from __future__ import annotations

from mmjax.errors import ConfigError
from mmjax.interop.families.resnet import cropped_share
from mmjax.interop.family import (
    Family,
    Settings,
    canonical_names,
    one_stream,
    only_encoder,
    their_activation,
)
from mmjax.interop.layouts import conv, dense, norm, same

DEFAULTS = {
    "num_channels": 3,
    "patch_size": 4,
    "hidden_sizes": [96, 192, 384, 768],
    "depths": [3, 3, 9, 3],
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "layer_scale_init_value": 1e-6,
}


def section(config, keys):
    """The encoder alone."""
    del keys
    given = Settings(config, DEFAULTS)
    if given.get("num_stages", len(given["depths"])) != len(given["depths"]):
        raise ConfigError(f"weights: num_stages is {given['num_stages']}, but depths {given['depths']}")
    return one_stream(
        "image",
        {
            "type": "convnext",
            "variant": "custom",
            "depths": list(given["depths"]),
            "widths": list(given["hidden_sizes"]),
            "patch_size": given["patch_size"],
            "activation": given.activation(),
            "layer_scale": given["layer_scale_init_value"] if given["layer_scale_init_value"] > 0 else None,
            "eps": given["layer_norm_eps"],
        },
    )


def entries(section):
    """Every tensor."""
    part, path = section["streams"]["image"]["encoder"], "image_encoder"
    found = conv("embeddings.patch_embeddings", f"{path}/stem")
    found += norm("embeddings.layernorm", f"{path}/stem_norm")
    for stage, depth in enumerate(part["depths"]):
        if stage:
            theirs = f"encoder.stages.{stage}.downsampling_layer"
            found += norm(f"{theirs}.0", f"{path}/stage_{stage}_norm")
            found += conv(f"{theirs}.1", f"{path}/stage_{stage}_downsample")
        for i in range(depth):
            theirs, ours = f"encoder.stages.{stage}.layers.{i}", f"{path}/stage_{stage}_block_{i}"
            found += conv(f"{theirs}.dwconv", f"{ours}/depthwise")
            found += norm(f"{theirs}.layernorm", f"{ours}/norm")
            found += dense(f"{theirs}.pwconv1", f"{ours}/mlp/up")
            found += dense(f"{theirs}.pwconv2", f"{ours}/mlp/down")
            if part["layer_scale"] is not None:
                found += same(f"{theirs}.layer_scale_parameter", f"{ours}/layer_scale")
    return found + norm("layernorm", f"{path}/norm")


def inputs(config):
    """The smallest image it takes."""
    given = Settings(config, DEFAULTS)
    side = given["patch_size"] * 2 ** (len(given["depths"]) - 1)
    return {"image": ((side, side, given["num_channels"]), "float32")}


def export(section, shapes):
    """config.json."""
    part = only_encoder("ConvNeXt", section, "image", "convnext")
    return {
        "architectures": ["ConvNextModel"],
        "model_type": "convnext",
        "num_channels": shapes["params/image_encoder/stem/kernel"][2],
        "patch_size": part["patch_size"],
        "num_stages": len(part["depths"]),
        "hidden_sizes": list(part["widths"]),
        "depths": list(part["depths"]),
        "hidden_act": their_activation(part["activation"]),
        "layer_norm_eps": part["eps"],
        "layer_scale_init_value": part["layer_scale"] or 0.0,
        "drop_path_rate": part["drop_path"],
    }


def transforms(config, settings):
    """Their image processor."""
    del config
    return {"image": cropped_share(settings)}


canonical = canonical_names("convnext.", unused=("classifier.",))
FAMILY = Family(("convnext",), section, entries, inputs, export, transforms, canonical)
