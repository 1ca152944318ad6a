"""VideoMAE (Tong et al. 2022, arXiv:2203.12602): the encoder, without decoder and classifier.

Where tokens are averaged for a classifier, the normalisation of the mean belongs to that classifier,
and tokens leave the encoder as they are. Our encoder takes images of any size; theirs names one, and
224 is what is written.
"""

from __future__ import annotations

import dataclasses

from mmjax.errors import ConfigError
from mmjax.interop.families import vit
from mmjax.interop.family import (
    Family,
    Settings,
    one_stream,
    only_encoder,
    their_sizes,
)
from mmjax.interop.layouts import Entry, blocks, conv, norm
from mmjax.interop.processors import image_transforms

DEFAULTS = {
    **vit.DEFAULTS,
    "num_frames": 16,
    "tubelet_size": 2,
    "use_mean_pooling": True,
}
PROCESSOR = {
    "size": {"shortest_edge": 224},
    "resample": 2,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
_FIELDS = {
    "norm_position": "pre",
    "layer_scale": None,
    "position": "sinusoidal",
    "pooling": "mean",
    "pooler": False,
}
_BIASES = {"query", "value", "out"}


def section(config, keys):
    """The encoder; pooled is the mean of the tokens."""
    del keys
    given = Settings(config, DEFAULTS)
    given.expect("num_channels", 3)
    # Older files have another name for it.
    biased = given.get("qv_bias", given.get("qkv_bias", True))
    encoder = given.encoder(
        "video_transformer",
        patch_size=given["patch_size"],
        tubelet_size=given["tubelet_size"],
        frames=given["num_frames"],
        attention_biases=sorted(_BIASES) if biased else ["out"],
        final_norm="none" if given["use_mean_pooling"] else "all",
    )
    return one_stream("video", encoder)


def entries(section):
    """Every tensor."""
    part = section["streams"]["video"]["encoder"]
    found = conv("embeddings.patch_embeddings.projection", "video_encoder/tubelet")
    found += [_bias_names(entry) for entry in blocks(vit.NAMES, "video_encoder", part)]
    return found + (norm("layernorm", "video_encoder/norm") if part["final_norm"] == "all" else [])


def _bias_names(entry: Entry) -> Entry:
    """Biases of queries and values stand beside the linear maps and not in them."""
    return dataclasses.replace(entry, keys=tuple(_on_disk(key) for key in entry.keys))


def _on_disk(key):
    return key.replace(".query.bias", ".q_bias").replace(".value.bias", ".v_bias")


def inputs(config):
    """A video."""
    given = Settings(config, DEFAULTS)
    side = given.side("image_size")
    return {"video": ((given["num_frames"], side, side, 3), "float32")}


def export(section, shapes):
    """config.json."""
    del shapes
    part = only_encoder("VideoMAE", section, "video", "video_transformer", _FIELDS)
    if part["final_norm"] == "pooled":
        raise ConfigError("VideoMAE has final_norm 'all' or 'none', this model 'pooled'")
    biases = set(part["attention_biases"])
    if biases not in (_BIASES, {"out"}):
        raise ConfigError(f"attention_biases {sorted(biases)}: expected query, value and out, or only out")
    if DEFAULTS["image_size"] % part["patch_size"]:
        raise ConfigError(f"patch_size {part['patch_size']}: VideoMAE is written for images of 224 pixels")
    return {
        "architectures": ["VideoMAEModel"],
        "model_type": "videomae",
        **their_sizes(part),
        "image_size": DEFAULTS["image_size"],
        "patch_size": part["patch_size"],
        "num_channels": 3,
        "num_frames": part["frames"],
        "tubelet_size": part["tubelet_size"],
        "qv_bias": "query" in biases,
        "use_mean_pooling": part["final_norm"] == "none",
    }


def canonical(key, config):
    """Without the prefix of models with heads; biases by their older names."""
    del config
    if not key.startswith(("videomae.", "embeddings.", "encoder.", "layernorm.")):
        return None
    return _on_disk(key.removeprefix("videomae."))


def transforms(config, settings):
    """Their image processor on frames, which are taken evenly from a longer video."""
    return {"video": video_transforms(Settings(config, DEFAULTS), settings, PROCESSOR)}


def video_transforms(config, settings, processor):
    """Our transforms for an image processor that works on the frames of a video."""
    decode = {"type": "decode_video", "num_frames": config["num_frames"]}
    return [decode, *image_transforms(settings, processor)[1:]]


FAMILY = Family(("videomae",), section, entries, inputs, export, transforms, canonical)
