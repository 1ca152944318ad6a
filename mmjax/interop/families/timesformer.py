"""TimeSformer with divided attention (Bertasius et al. 2021, arXiv:2102.05095), without its classifier."""

from __future__ import annotations

from mmjax.interop.families import videomae, vit
from mmjax.interop.family import (
    Family,
    Settings,
    canonical_names,
    one_stream,
    only_encoder,
    qkv_bias,
    their_sizes,
)
from mmjax.interop.layouts import dense, fused_qkv, norm, same

DEFAULTS = {
    **vit.DEFAULTS,
    "layer_norm_eps": 1e-6,
    "num_frames": 8,
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
        attention_biases=given.attention_biases(),
    )
    return one_stream("video", encoder)


def entries(section):
    """Every tensor."""
    part = section["streams"]["video"]["encoder"]
    found = [
        *vit.embeddings("video_encoder", "patch"),
        *same("embeddings.time_embeddings", "video_encoder/time", (1, -1, part["width"])),
        *norm("layernorm", "video_encoder/norm"),
    ]
    biased = "query" in part["attention_biases"]
    for i in range(part["depth"]):
        theirs, ours = f"encoder.layer.{i}", f"video_encoder/blocks_{i}"
        for name in ("attention", "temporal_attention"):
            found += fused_qkv(f"{theirs}.{name}.attention.qkv.", f"{ours}/{name}", bias=biased)
            found += dense(f"{theirs}.{name}.output.dense", f"{ours}/{name}/out", inputs=2)
        found += dense(f"{theirs}.temporal_dense", f"{ours}/temporal_dense")
        found += norm(f"{theirs}.temporal_layernorm", f"{ours}/temporal_norm")
        found += norm(f"{theirs}.layernorm_before", f"{ours}/attention_norm")
        found += norm(f"{theirs}.layernorm_after", f"{ours}/mlp_norm")
        found += dense(f"{theirs}.intermediate.dense", f"{ours}/mlp/up")
        found += dense(f"{theirs}.output.dense", f"{ours}/mlp/down")
    return found


def inputs(config):
    """A video of the size the positions are for."""
    given = Settings(config, DEFAULTS)
    side = given.side("image_size")
    return {"video": ((given["num_frames"], side, side, 3), "float32")}


def export(section, shapes):
    """config.json."""
    part = only_encoder("TimeSformer", section, "video", "timesformer", _FIELDS)
    side = vit.square_grid(shapes["params/video_encoder/positions/table"])
    return {
        "architectures": ["TimesformerModel"],
        "model_type": "timesformer",
        **their_sizes(part),
        "image_size": side * part["patch_size"],
        "patch_size": part["patch_size"],
        "num_channels": 3,
        "num_frames": part["frames"],
        "qkv_bias": qkv_bias(part),
        "attention_type": "divided_space_time",
    }


def transforms(config, settings):
    """Their image processor, which is VideoMAE's, on frames."""
    given = Settings(config, DEFAULTS)
    return {"video": videomae.video_transforms(given, settings, videomae.PROCESSOR)}


canonical = canonical_names("timesformer.", unused=("classifier.",))
FAMILY = Family(("timesformer",), section, entries, inputs, export, transforms, canonical)
