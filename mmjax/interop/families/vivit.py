"""ViViT, model 1 (Arnab et al. 2021, arXiv:2103.15691, section 3.3), without its classifier."""

from __future__ import annotations

from mmjax.errors import ConfigError
from mmjax.interop.families import videomae, vit
from mmjax.interop.family import (
    Family,
    Settings,
    canonical_names,
    one_stream,
    only_encoder,
    qkv_bias,
    their_sizes,
    with_defaults,
)
from mmjax.interop.layouts import zero_pooler

DEFAULTS = {
    **vit.DEFAULTS,
    "hidden_act": "gelu_fast",
    "layer_norm_eps": 1e-6,
    "num_frames": 32,
    "tubelet_size": [2, 16, 16],
}
PROCESSOR = {
    "size": {"shortest_edge": 256},
    "resample": 2,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "rescale_factor": 1 / 127.5,
    "offset": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
_FIELDS = {
    "norm_position": "pre",
    "final_norm": "all",
    "layer_scale": None,
    "position": "learned",
    "pooling": "cls",
}


def section(config, keys):
    """The encoder; the class token is pooled, through a linear layer and tanh where there is one."""
    given = Settings(config, DEFAULTS)
    given.expect("num_channels", 3)
    length, side, other = given["tubelet_size"]
    if side != other:
        raise ConfigError(f"weights: tubelet_size is {given['tubelet_size']}, expected square patches")
    if given["num_frames"] % length:
        raise ConfigError(
            f"weights: tubelet_size is {given['tubelet_size']}, expected a divisor of num_frames, "
            f"{given['num_frames']}, first"
        )
    encoder = given.encoder(
        "video_transformer",
        patch_size=side,
        tubelet_size=length,
        frames=given["num_frames"],
        attention_biases=given.attention_biases(),
        position="learned",
        pooling="cls",
        pooler=vit.reads_pooler(given, keys),
    )
    return one_stream("video", encoder)


def entries(section):
    """Every tensor."""
    return vit.transformer(section["streams"]["video"]["encoder"], "video_encoder", "tubelet")


def inputs(config):
    """A video of the size the positions are for."""
    given = Settings(config, DEFAULTS)
    size = given["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return {"video": ((given["num_frames"], height, width, 3), "float32")}


def export(section, shapes):
    """config.json."""
    part = only_encoder("ViViT", section, "video", "video_transformer", _FIELDS)
    moments, rows, columns, _ = shapes["params/video_encoder/positions/table"]
    side = part["patch_size"]
    return {
        "architectures": ["VivitModel"],
        "model_type": "vivit",
        **their_sizes(part),
        "image_size": rows * side if rows == columns else [rows * side, columns * side],
        "num_frames": moments * part["tubelet_size"],
        "tubelet_size": [part["tubelet_size"], side, side],
        "num_channels": 3,
        "qkv_bias": qkv_bias(part),
        **vit.pooler_settings(part),
    }


def constants(section):
    """A pooler of zeros where the model has none."""
    part = section["streams"]["video"]["encoder"]
    return {} if part["pooler"] else zero_pooler(part["width"])


def transforms(config, settings):
    """Their image processor on frames; with an offset, pixels are taken to -1..1 and then normalised."""
    given = with_defaults(settings, PROCESSOR)
    if given["offset"]:
        plain = not given.get("do_normalize", True)
        given["image_mean"] = [1.0 + mean for mean in ([0.0] * 3 if plain else given["image_mean"])]
        given["image_std"] = [1.0] * 3 if plain else given["image_std"]
        given["do_normalize"] = True
    chain = videomae.video_transforms(Settings(config, DEFAULTS), given, PROCESSOR)
    return {"video": chain}


canonical = canonical_names("vivit.", unused=("classifier.",))
FAMILY = Family(("vivit",), section, entries, inputs, export, transforms, canonical, constants)
