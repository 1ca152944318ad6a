"""SigLIP (Zhai et al. 2023, arXiv:2303.15343), and SigLIP 2 at fixed resolution (Tschannen et al. 2025,
arXiv:2502.14786), whose files have the same layout: both encoders, or one of them."""

from __future__ import annotations

from mmjax.errors import ConfigError
from mmjax.interop.families import clip, two_towers, vit
from mmjax.interop.family import BASE_SIZES, Family, check_all_biases, check_fields, their_sizes
from mmjax.interop.layouts import blocks, conv, dense, fused_qkv, norm, same

TEXT = {
    **BASE_SIZES,
    "vocab_size": 32000,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
VISION = {
    **BASE_SIZES,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}
PROCESSOR = {
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
_IMAGE_FIELDS = {
    "norm_position": "pre",
    "pre_norm": False,
    "patch_bias": True,
    "position": "learned",
    "final_norm": "all",
    "pooling": "map",
    "pooler": False,
    "layer_scale": None,
    "registers": 0,
    "antialias": False,
}
_TEXT_FIELDS = {
    "norm_position": "pre",
    "causal": False,
    "position": "learned",
    "final_norm": "all",
    "pooling": "last",
    "pooler": "linear",
    "layer_scale": None,
    "segments": 0,
    "attend_padding": True,
}


def section(config, keys):
    """Encoders; their pooled vectors are the embeddings, divided by their lengths."""
    del keys
    return encoders_section(_settings(config), _image_section)


def _settings(config):
    return two_towers.encoder_settings(config, {"text": TEXT, "image": VISION})


def encoders_section(given, image_section):
    """The `model` section; `image_section` makes the image encoder's of its settings."""
    encoders = {}
    if "text" in given:
        encoders["text"] = _text_section(given["text"])
    if "image" in given:
        given["image"].expect("num_channels", 3)
        given["image"].expect("vision_use_head", True)
        encoders["image"] = image_section(given["image"])
    return two_towers.model_section(encoders, similarity_heads() if len(given) == 2 else {})


def _image_section(given):
    return given.encoder("vit", **vit.patches(given), pooling="map")


def _text_section(given):
    """Padding counts as text, and its last position is read."""
    given.expect("projection_size", given["hidden_size"])
    return given.encoder(
        "text_transformer",
        vocab_size=given["vocab_size"],
        max_length=given["max_position_embeddings"],
        attend_padding=True,
        pooling="last",
        pooler="linear",
    )


def similarity_heads():
    """Embeddings, scale and bias."""
    return {
        "image_embedding": {"type": "projection", "reads": "image", "width": 0},
        "text_embedding": {"type": "projection", "reads": "text", "width": 0},
        "scale": {"type": "learned_scale", "initial": 10.0, "maximum": None},
        "bias": {"type": "learned_bias"},
    }


def entries(section):
    """Every tensor."""
    return encoders_entries(section, conv)


def encoders_entries(section, patch):
    """Every tensor; `patch` (`conv` or `dense`) gives those of the image encoder's map of patches."""
    streams, found = section["streams"], []
    if "image" in streams:
        found += patch("vision_model.embeddings.patch_embedding", "image_encoder/patch")
        found += _image_entries(streams["image"]["encoder"])
    if "text" in streams:
        found += clip.text_entries(streams["text"]["encoder"])
        found += dense("text_model.head", "text_encoder/pooler/dense")
    if section["heads"]:
        found += same("logit_scale", "scale_head/log_scale", (1,))
        found += same("logit_bias", "bias_head/bias", (1,))
    return found


def _image_entries(encoder):
    """Positions, blocks and pooling."""
    positions = "vision_model.embeddings.position_embedding.weight"
    theirs, ours = "vision_model.head", "image_encoder/pool"
    return [
        *same(positions, "image_encoder/positions/table", (-1, encoder["width"])),
        *blocks(clip.VISION_NAMES, "image_encoder", encoder),
        *norm("vision_model.post_layernorm", "image_encoder/norm"),
        *same(f"{theirs}.probe", f"{ours}/probe", (1, 1, -1)),
        *fused_qkv(f"{theirs}.attention.in_proj_", f"{ours}/attention"),
        *dense(f"{theirs}.attention.out_proj", f"{ours}/attention/out", inputs=2),
        *norm(f"{theirs}.layernorm", f"{ours}/norm"),
        *dense(f"{theirs}.mlp.fc1", f"{ours}/mlp/up"),
        *dense(f"{theirs}.mlp.fc2", f"{ours}/mlp/down"),
    ]


def inputs(config):
    """An image of the size the positions are for, a text of four tokens."""
    return two_towers.image_and_text_inputs(_settings(config))


def export(section, shapes):
    """config.json: of both encoders, or of the one there is."""
    encoders = two_towers.check_streams("SigLIP", section, {"text": "text_transformer", "image": "vit"})
    configs = {}
    if "text" in encoders:
        configs["text"] = text_config("SigLIP", encoders["text"])
    if "image" in encoders:
        configs["image"] = clip.image_config("SigLIP", encoders["image"], shapes, _IMAGE_FIELDS)
    return both_or_one("SigLIP", "siglip", "Siglip", section["heads"], configs)


def text_config(what, text):
    """What config.json says of the text encoder."""
    check_fields(what, text, _TEXT_FIELDS)
    check_all_biases(what, text)
    return {
        **their_sizes(text),
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["max_length"],
        "projection_size": text["width"],
    }


def both_or_one(what, name, classes, heads, configs):
    """config.json of two encoders with their heads, or of one without; see `two_towers.config_of_one`."""
    if len(configs) == 1:
        if heads:
            raise ConfigError(f"{what} with one encoder has no heads")
        return two_towers.config_of_one(name, classes, *configs.popitem())
    expected = similarity_heads()
    for head, fields in expected.items():
        if head not in heads:
            raise ConfigError(f"{what} has the heads {', '.join(expected)}, this model no '{head}'")
        fixed = {key: fields[key] for key in ("type", "reads", "width") if key in fields}
        check_fields(what, heads[head], fixed)
    return two_towers.config_of_both(name, classes, configs)


def transforms(config, settings):
    """Their image processor and tokenizer."""
    return two_towers.image_and_text_transforms(_settings(config), settings, PROCESSOR)


FAMILY = Family(
    ("siglip", "siglip_text_model", "siglip_vision_model"),
    section,
    entries,
    inputs,
    export,
    transforms,
    two_towers.canonical,
    pad_texts=True,
)
