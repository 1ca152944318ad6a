"""TimeSformer with divided attention (Bertasius et al. 2021, arXiv:2102.05095), without its classifier."""

from __future__ import annotations

from mmjax.interop.families import videomae, vit
from mmjax.interop.family import (
    Family,
    Settings,
    check_fields,
    one_stream,
    only_encoder,
    qkv_bias,
    their_sizes,
)
from mmjax.interop.layouts import ClassAndPositions, Entry, Fused, conv, dense, norm, same

DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "num_frames": 8,
    "qkv_bias": True,
    "attention_type": "divided_space_time",
}
_FIELDS = {"norm_position": "pre", "final_norm": "all", "layer_scale": None}


def section(config, keys):
    """The encoder; the class token is pooled."""
    del keys
    given = Settings(config, DEFAULTS)
    given.expect("num_channels", 3)
    given.expect("attention_type", "divided_space_time")
    encoder = given.encoder(
        "timesformer",
        patch_size=given["patch_size"],
        frames=given["num_frames"],
        attention_biases=["query", "key", "value", "out"] if given["qkv_bias"] else ["out"],
    )
    return one_stream("video", encoder)


def entries(section):
    """Every tensor."""
    part = section["streams"]["video"]["encoder"]
    positions = Entry(
        ("embeddings.cls_token", "embeddings.position_embeddings"),
        ("params/video_encoder/cls", "params/video_encoder/positions/table"),
        ClassAndPositions(),
    )
    found = [
        *conv("embeddings.patch_embeddings.projection", "video_encoder/patch"),
        positions,
        *same("embeddings.time_embeddings", "video_encoder/time", (1, -1, part["width"])),
        *norm("layernorm", "video_encoder/norm"),
    ]
    biased = "query" in part["attention_biases"]
    for i in range(part["depth"]):
        theirs, ours = f"encoder.layer.{i}", f"video_encoder/blocks_{i}"
        for name in ("attention", "temporal_attention"):
            found += _attention(f"{theirs}.{name}", f"{ours}/{name}", biased)
        found += dense(f"{theirs}.temporal_dense", f"{ours}/temporal_dense")
        found += norm(f"{theirs}.temporal_layernorm", f"{ours}/temporal_norm")
        found += norm(f"{theirs}.layernorm_before", f"{ours}/attention_norm")
        found += norm(f"{theirs}.layernorm_after", f"{ours}/mlp_norm")
        found += dense(f"{theirs}.intermediate.dense", f"{ours}/mlp/up")
        found += dense(f"{theirs}.output.dense", f"{ours}/mlp/down")
    return found


def _attention(theirs, ours, biased):
    parts = ("query", "key", "value")
    kernels = tuple(f"params/{ours}/{part}/kernel" for part in parts)
    biases = tuple(f"params/{ours}/{part}/bias" for part in parts)
    found = [Entry((f"{theirs}.attention.qkv.weight",), kernels, Fused())]
    if biased:
        found.append(Entry((f"{theirs}.attention.qkv.bias",), biases, Fused(inputs=0)))
    return found + dense(f"{theirs}.output.dense", f"{ours}/out", inputs=2)


def inputs(config):
    """A video of the size the positions are for."""
    given = Settings(config, DEFAULTS)
    side = vit.side(given["image_size"])
    return {"video": ((given["num_frames"], side, side, 3), "float32")}


def export(section, shapes):
    """config.json."""
    part = only_encoder("TimeSformer", section, "video", "timesformer")
    check_fields("TimeSformer", part, _FIELDS)
    rows, columns, _ = shapes["params/video_encoder/positions/table"]
    vit.side([rows, columns])
    return {
        "architectures": ["TimesformerModel"],
        "model_type": "timesformer",
        **their_sizes(part),
        "image_size": rows * part["patch_size"],
        "patch_size": part["patch_size"],
        "num_channels": 3,
        "num_frames": part["frames"],
        "qkv_bias": qkv_bias(part),
        "attention_type": "divided_space_time",
    }


def canonical(key, config):
    """Without the prefix of models with a classifier."""
    del config
    return None if key.startswith("classifier.") else key.removeprefix("timesformer.")


def transforms(config, settings):
    """Their image processor, which is VideoMAE's, on frames."""
    given = Settings(config, DEFAULTS)
    return {"video": videomae.video_transforms(given, settings, videomae.PROCESSOR)}


FAMILY = Family(("timesformer",), section, entries, inputs, export, transforms, canonical)
