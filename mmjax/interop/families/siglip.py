"""SigLIP (Zhai et al. 2023, arXiv:2303.15343), and SigLIP 2 at fixed resolution (Tschannen et al. 2025,
arXiv:2502.14786), whose files have the same layout: both encoders, or one of them."""

from __future__ import annotations

from mmjax.errors import ConfigError
from mmjax.interop.families import clip, vit
from mmjax.interop.family import Family, check_fields, their_sizes
from mmjax.interop.layouts import Entry, Fused, blocks, conv, dense, norm, same
from mmjax.interop.preprocess import image_transforms, text_transforms

TEXT = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
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
IMAGE_FIELDS = {
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
TEXT_FIELDS = {
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
    given = clip.parts(config, TEXT, VISION)
    streams, heads = {}, {}
    if "text" in given:
        streams["text"] = text_section(given["text"])
    if "image" in given:
        given["image"].expect("num_channels", 3)
        given["image"].expect("vision_use_head", True)
        streams["image"] = given["image"].encoder("vit", **vit.patches(given["image"]), pooling="map")
    if len(given) == 2:
        heads = similarity_heads()
    return clip.model_section(streams, heads)


def text_section(given):
    """The text encoder: padding counts as text, and its last position is read."""
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
    streams, found = section["streams"], []
    if "image" in streams:
        encoder, positions = streams["image"]["encoder"], "vision_model.embeddings.position_embedding.weight"
        width = encoder["width"]
        found += conv("vision_model.embeddings.patch_embedding", "image_encoder/patch")
        found += same(positions, "image_encoder/positions/table", (-1, width))
        found += image_entries(encoder)
    if "text" in streams:
        found += text_entries(streams["text"]["encoder"])
    return found + scalar_entries(section)


def image_entries(encoder):
    """The blocks of the image encoder and its pooling."""
    theirs, ours = "vision_model.head", "image_encoder/pool"
    maps = [f"params/{ours}/attention/{part}" for part in ("query", "key", "value")]
    kernels, biases = (tuple(f"{path}/{leaf}" for path in maps) for leaf in ("kernel", "bias"))
    return [
        *blocks(clip.VISION_NAMES, "image_encoder", encoder),
        *norm("vision_model.post_layernorm", "image_encoder/norm"),
        *same(f"{theirs}.probe", f"{ours}/probe", (1, 1, -1)),
        Entry((f"{theirs}.attention.in_proj_weight",), kernels, Fused()),
        Entry((f"{theirs}.attention.in_proj_bias",), biases, Fused(inputs=0)),
        *dense(f"{theirs}.attention.out_proj", f"{ours}/attention/out", inputs=2),
        *norm(f"{theirs}.layernorm", f"{ours}/norm"),
        *dense(f"{theirs}.mlp.fc1", f"{ours}/mlp/up"),
        *dense(f"{theirs}.mlp.fc2", f"{ours}/mlp/down"),
    ]


def text_entries(encoder):
    """The text encoder and its last linear layer."""
    return clip.text_entries(encoder) + dense("text_model.head", "text_encoder/pooler/dense")


def scalar_entries(section):
    """Scale and bias of the similarities, where both encoders are there."""
    if not section["heads"]:
        return []
    return [*same("logit_scale", "scale_head/log_scale", (1,)), *same("logit_bias", "bias_head/bias", (1,))]


def inputs(config):
    """An image of the size the positions are for, a text of four tokens."""
    given, spec = clip.parts(config, TEXT, VISION), {}
    if "image" in given:
        size = vit.side(given["image"]["image_size"])
        spec["image"] = ((size, size, 3), "float32")
    if "text" in given:
        spec["text"] = ((4,), "int32")
    return spec


def export(section, shapes):
    """config.json: of both encoders, or of the one there is."""
    encoders, configs = clip.check_streams("SigLIP", section, "text_transformer", "vit"), {}
    if "text" in encoders:
        configs["text"] = text_config("SigLIP", encoders["text"])
    if "image" in encoders:
        check_fields("SigLIP", encoders["image"], IMAGE_FIELDS)
        configs["image"] = vit.sizes(encoders["image"], shapes)
        del configs["image"]["qkv_bias"]
    return both_or_one("SigLIP", "siglip", section, configs)


def text_config(what, text):
    """What config.json says of the text encoder."""
    check_fields(what, text, TEXT_FIELDS)
    return {
        **their_sizes(text),
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["max_length"],
        "projection_size": text["width"],
    }


def both_or_one(what, name, section, configs):
    """config.json of two encoders with their heads, or of one without."""
    prefix = {"siglip": "Siglip", "siglip2": "Siglip2"}[name]
    if len(configs) == 1:
        (stream, config) = next(iter(configs.items()))
        if section["heads"]:
            raise ConfigError(f"{what} with one encoder has no heads")
        kind, title = {"text": ("text", "Text"), "image": ("vision", "Vision")}[stream]
        return {"architectures": [f"{prefix}{title}Model"], "model_type": f"{name}_{kind}_model", **config}
    expected = similarity_heads()
    for head, fields in expected.items():
        if head not in section["heads"]:
            raise ConfigError(f"{what} has the heads {', '.join(expected)}, this model no '{head}'")
        check_fields(
            what, section["heads"][head], {k: v for k, v in fields.items() if k in ("type", "reads", "width")}
        )
    return {
        "architectures": [f"{prefix}Model"],
        "model_type": name,
        "text_config": {"model_type": f"{name}_text_model", **configs["text"]},
        "vision_config": {"model_type": f"{name}_vision_model", **configs["image"]},
    }


def transforms(config, settings):
    """Their image processor and tokenizer."""
    given, chains = clip.parts(config, TEXT, VISION), {}
    if "image" in given:
        chains["image"] = image_transforms(settings, PROCESSOR)
    if "text" in given:
        chains["text"] = text_transforms(settings, given["text"]["max_position_embeddings"])
    return chains


FAMILY = Family(
    ("siglip", "siglip_text_model", "siglip_vision_model"),
    section,
    entries,
    inputs,
    export,
    transforms,
    clip.canonical,
    pad_texts=True,
)
