"""CLIP (Radford et al. 2021, arXiv:2103.00020): both encoders, or one of them."""

from __future__ import annotations

import math

from mmjax.errors import ConfigError
from mmjax.interop.families import vit
from mmjax.interop.family import Family, Settings, check_fields, their_sizes
from mmjax.interop.layouts import BlockNames, ClassAndPositions, Entry, blocks, conv, dense, norm, same
from mmjax.interop.preprocess import image_transforms, text_transforms

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
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
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


def parts(config, text_defaults, vision_defaults) -> dict[str, Settings]:
    """stream -> the settings of its encoder: two in one config, or the config of one."""
    kind = config["model_type"]
    if kind.endswith("_text_model"):
        return {"text": Settings(config, text_defaults)}
    if kind.endswith("_vision_model"):
        return {"image": Settings(config, vision_defaults)}
    return {
        "text": Settings(config.get("text_config") or {}, text_defaults),
        "image": Settings(config.get("vision_config") or {}, vision_defaults),
    }


def section(config, keys):
    """Encoders, and the projections into the shared space where the checkpoint has them."""
    given = parts(config, TEXT, VISION)
    streams, heads = {}, {}
    if "text" in given:
        text = given["text"]
        # Files older than the setting say 2, and pool at the largest id, which is the end of text.
        end = text["eos_token_id"] if text["eos_token_id"] != 2 else text["vocab_size"] - 1
        streams["text"] = text.encoder(
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
        streams["image"] = image.encoder(
            "vit",
            **vit.patches(image),
            patch_bias=False,
            pre_norm=True,
            final_norm="pooled",
        )
    both = len(given) == 2
    for stream, name in (("image", "visual_projection"), ("text", "text_projection")):
        if f"{name}.weight" in keys:
            width = (config if both else given[stream]).get("projection_dim", 512)
            heads[f"{stream}_embedding"] = {"type": "projection", "reads": stream, "width": width}
    if both:
        initial = math.exp(config.get("logit_scale_init_value", 2.6592))
        heads["scale"] = {"type": "learned_scale", "initial": initial}
    return model_section(streams, heads)


def model_section(streams, heads):
    """The `model` section of encoders whose streams are called by their kinds."""
    return {
        "streams": {name: {"kind": name, "encoder": encoder} for name, encoder in streams.items()},
        "heads": heads,
    }


def entries(section):
    """Every tensor."""
    streams, heads, found = section["streams"], section["heads"], []
    if "image" in streams:
        encoder = streams["image"]["encoder"]
        positions = Entry(
            ("vision_model.embeddings.class_embedding", "vision_model.embeddings.position_embedding.weight"),
            ("params/image_encoder/cls", "params/image_encoder/positions/table"),
            ClassAndPositions(class_shape=(-1,), table_shape=(-1, 0)),
        )
        found += [
            positions,
            *conv("vision_model.embeddings.patch_embedding", "image_encoder/patch", bias=False),
        ]
        found += norm("vision_model.pre_layrnorm", "image_encoder/embedding_norm")
        found += blocks(VISION_NAMES, "image_encoder", encoder)
        found += norm("vision_model.post_layernorm", "image_encoder/norm")
    if "text" in streams:
        found += text_entries(streams["text"]["encoder"])
    for stream, name in (("image", "visual_projection"), ("text", "text_projection")):
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
    given, spec = parts(config, TEXT, VISION), {}
    if "image" in given:
        size = vit.side(given["image"]["image_size"])
        spec["image"] = ((size, size, 3), "float32")
    if "text" in given:
        spec["text"] = ((4,), "int32")
    return spec


def export(section, shapes):
    """config.json: of both encoders, or of the one there is."""
    encoders = check_streams("CLIP", section, "text_transformer", "vit")
    heads = dict(section["heads"])
    configs = {}
    if "text" in encoders:
        text = encoders["text"]
        check_fields("CLIP", text, _TEXT_FIELDS)
        if text["eos_id"] == 2:
            raise ConfigError("CLIP with eos_id 2 is read as pooling at the largest id; use another id")
        configs["text"] = {
            **their_sizes(text),
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["max_length"],
            "eos_token_id": text["eos_id"],
        }
    if "image" in encoders:
        check_fields("CLIP", encoders["image"], _IMAGE_FIELDS)
        configs["image"] = vit.sizes(encoders["image"], shapes)
        del configs["image"]["qkv_bias"]
    for stream in configs:
        configs[stream]["projection_dim"] = _projection("CLIP", heads, stream)
    if len(configs) == 1:
        (stream, config), projected = *configs.items(), heads
        name, kind = {"text": ("Text", "text"), "image": ("Vision", "vision")}[stream]
        model = f"CLIP{name}Model{'WithProjection' if projected else ''}"
        return {"architectures": [model], "model_type": f"clip_{kind}_model", **config}
    scale = heads.pop("scale", None)
    widths = {configs[stream]["projection_dim"] for stream in configs}
    if scale is None or len(heads) != 2 or len(widths) != 1:
        raise ConfigError("CLIP has heads image_embedding, text_embedding (of one width) and scale")
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": widths.pop(),
        "logit_scale_init_value": math.log(scale["initial"]),
        "text_config": {"model_type": "clip_text_model", **configs["text"]},
        "vision_config": {"model_type": "clip_vision_model", **configs["image"]},
    }


def check_streams(what, section, text, image):
    """stream -> encoder; ConfigError unless they are 'text' and 'image', or one of them, of these types."""
    encoders = {name: stream["encoder"] for name, stream in section["streams"].items()}
    expected = {"text": text, "image": image}
    if not set(encoders) <= set(expected) or section["fusion"]:
        raise ConfigError(f"{what} has the streams text and image, or one of them, and no fusion")
    for name, encoder in encoders.items():
        if encoder is None or encoder["type"] != expected[name]:
            raise ConfigError(f"{what} has the encoder '{expected[name]}' for {name}")
    return encoders


def _projection(what, heads, stream):
    head = heads.get(f"{stream}_embedding")
    if head is None:
        return 512
    expected = {"type": "projection", "reads": stream, "hidden": []}
    check_fields(what, {**head, "hidden": list(head.get("hidden", []))}, expected)
    return head["width"]


def canonical(key, config):
    """With the prefix of its encoder, which files of one encoder may lack."""
    if key.endswith("position_ids"):
        return None
    kind = config["model_type"]
    for prefix, suffix in (("text_model.", "_text_model"), ("vision_model.", "_vision_model")):
        alone = kind.endswith(suffix)
        if alone and not key.startswith((prefix, "text_projection", "visual_projection")):
            return prefix + key
    return key


def transforms(config, settings):
    """Their image processor and tokenizer."""
    given, chains = parts(config, TEXT, VISION), {}
    if "image" in given:
        chains["image"] = image_transforms(settings, PROCESSOR)
    if "text" in given:
        chains["text"] = text_transforms(settings, given["text"]["max_position_embeddings"])
    return chains


FAMILY = Family(
    ("clip", "clip_text_model", "clip_vision_model"), section, entries, inputs, export, transforms, canonical
)
