"""CLIP (Radford et al. 2021, arXiv:2103.00020): both encoders, or one of them."""

from __future__ import annotations

import math

from mmjax.errors import ConfigError
from mmjax.interop.families import two_towers, vit
from mmjax.interop.family import BASE_SIZES, Family, check_all_biases, check_fields, their_sizes
from mmjax.interop.layouts import (
    BlockNames,
    ClassAndPositions,
    blocks,
    class_and_positions,
    conv,
    dense,
    norm,
    same,
)

TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
VISION = {
    **BASE_SIZES,
    "projection_dim": 512,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
PROCESSOR = {
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_PARTS = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "attention_norm": "layer_norm1",
    "mlp_norm": "layer_norm2",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
VISION_NAMES = BlockNames(prefix="vision_model.encoder.layers.{i}.", **_PARTS)
TEXT_NAMES = BlockNames(prefix="text_model.encoder.layers.{i}.", **_PARTS)
# One vector, and a table whose first row is its position.
POSITIONS = ClassAndPositions(class_shape=(-1,), table_shape=(-1, 0))
_PROJECTIONS = {"image": "visual_projection", "text": "text_projection"}
# What every CLIP has.
_IMAGE_FIELDS = {
    "norm_position": "pre",
    "pre_norm": True,
    "patch_bias": False,
    "position": "learned",
    "final_norm": "pooled",
    "pooling": "cls",
    "pooler": False,
    "layer_scale": None,
    "registers": 0,
    "antialias": False,
}
_TEXT_FIELDS = {
    "norm_position": "pre",
    "causal": True,
    "position": "learned",
    "final_norm": "all",
    "pooling": "eos",
    "pooler": "none",
    "layer_scale": None,
    "segments": 0,
    "attend_padding": False,
}


def _settings(config):
    return two_towers.encoder_settings(config, {"text": TEXT, "image": VISION})


def section(config, keys):
    """Encoders, and the projections into the shared space where the checkpoint has them."""
    given = _settings(config)
    encoders, heads = {}, {}
    if "text" in given:
        text = given["text"]
        # Files older than the setting say 2, and pool at the largest id, which is the end of text.
        end = text["eos_token_id"] if text["eos_token_id"] != 2 else text["vocab_size"] - 1
        encoders["text"] = text.encoder(
            "text_transformer",
            vocab_size=text["vocab_size"],
            max_length=text["max_position_embeddings"],
            causal=True,
            pooling="eos",
            eos_id=end,
        )
    if "image" in given:
        image = given["image"]
        image.expect("num_channels", 3)
        encoders["image"] = image.encoder(
            "vit", **vit.patches(image), patch_bias=False, pre_norm=True, final_norm="pooled"
        )
    both = len(given) == 2
    for stream, name in _PROJECTIONS.items():
        if f"{name}.weight" in keys:
            width = (config if both else given[stream]).get("projection_dim", 512)
            heads[f"{stream}_embedding"] = {"type": "projection", "reads": stream, "width": width}
    if both:
        initial = math.exp(config.get("logit_scale_init_value", 2.6592))
        heads["scale"] = {"type": "learned_scale", "initial": initial}
    return two_towers.model_section(encoders, heads)


def entries(section):
    """Every tensor."""
    streams, heads, found = section["streams"], section["heads"], []
    if "image" in streams:
        theirs = "vision_model.embeddings"
        tokens = (f"{theirs}.class_embedding", f"{theirs}.position_embedding.weight")
        found += class_and_positions(tokens, "image_encoder", POSITIONS)
        found += conv(f"{theirs}.patch_embedding", "image_encoder/patch", bias=False)
        found += norm("vision_model.pre_layrnorm", "image_encoder/embedding_norm")
        found += blocks(VISION_NAMES, "image_encoder", streams["image"]["encoder"])
        found += norm("vision_model.post_layernorm", "image_encoder/norm")
    if "text" in streams:
        found += text_entries(streams["text"]["encoder"])
    for stream, name in _PROJECTIONS.items():
        if f"{stream}_embedding" in heads:
            found += dense(name, f"{stream}_embedding_head/embedding", bias=False)
    if "scale" in heads:
        found += same("logit_scale", "scale_head/log_scale", ())
    return found


def text_entries(encoder):
    """The text encoder, which SigLIP's has too."""
    return [
        *same("text_model.embeddings.token_embedding.weight", "text_encoder/embedding/embedding"),
        *same("text_model.embeddings.position_embedding.weight", "text_encoder/positions/table"),
        *blocks(TEXT_NAMES, "text_encoder", encoder),
        *norm("text_model.final_layer_norm", "text_encoder/norm"),
    ]


def inputs(config):
    """An image of the size the positions are for, a text of four tokens."""
    return two_towers.image_and_text_inputs(_settings(config))


def export(section, shapes):
    """config.json: of both encoders, or of the one there is."""
    encoders = two_towers.check_streams("CLIP", section, {"text": "text_transformer", "image": "vit"})
    heads, configs = dict(section["heads"]), {}
    if "text" in encoders:
        configs["text"] = _text_config(encoders["text"])
    if "image" in encoders:
        configs["image"] = image_config("CLIP", encoders["image"], shapes, _IMAGE_FIELDS)
    for stream in configs:
        configs[stream]["projection_dim"] = _projection(heads, stream)
    if len(configs) == 1:
        return two_towers.config_of_one("clip", "CLIP", *configs.popitem(), projected=bool(heads))
    scale = heads.pop("scale", None)
    widths = {config["projection_dim"] for config in configs.values()}
    if scale is None or len(heads) != 2 or len(widths) != 1:
        raise ConfigError("CLIP has heads image_embedding, text_embedding (of one width) and scale")
    more = {"projection_dim": widths.pop(), "logit_scale_init_value": math.log(scale["initial"])}
    return two_towers.config_of_both("clip", "CLIP", configs, **more)


def _text_config(text):
    check_fields("CLIP", text, _TEXT_FIELDS)
    check_all_biases("CLIP", text)
    if text["eos_id"] == 2:
        raise ConfigError("CLIP with eos_id 2 is read as pooling at the largest id; use another id")
    return {
        **their_sizes(text),
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["max_length"],
        "eos_token_id": text["eos_id"],
    }


def image_config(what, image, shapes, fields):
    """What config.json says of the image encoder, which `check_fields` compares with `fields`."""
    check_fields(what, image, fields)
    check_all_biases(what, image)
    return vit.sizes(image, shapes)


def _projection(heads, stream):
    head = heads.get(f"{stream}_embedding")
    if head is None:
        return 512
    expected = {"type": "projection", "reads": stream, "hidden": []}
    check_fields("CLIP", {**head, "hidden": list(head.get("hidden", []))}, expected)
    return head["width"]


def transforms(config, settings):
    """Their image processor and tokenizer."""
    return two_towers.image_and_text_transforms(_settings(config), settings, PROCESSOR)


FAMILY = Family(
    ("clip", "clip_text_model", "clip_vision_model"),
    section,
    entries,
    inputs,
    export,
    transforms,
    two_towers.canonical,
)
