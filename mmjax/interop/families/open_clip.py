"""CLIP models of open_clip (Cherti et al. 2022, arXiv:2212.07143): a ViT and a causal text transformer.

Their files are open_clip_config.json and open_clip_model.safetensors; written back they are CLIP models
of transformers. Image towers of timm, ResNets, CoCa and text towers of transformers are refused.
"""

from __future__ import annotations

from mmjax.errors import ConfigError
from mmjax.interop.families import clip, two_towers, vit
from mmjax.interop.family import Family, Settings, canonical_names
from mmjax.interop.layouts import class_and_positions, conv, dense, fused_qkv, norm, same
from mmjax.interop.processors import text_transforms

_MODEL = {"embed_dim": 512, "quick_gelu": False, "custom_text": False, "vision_cfg": {}, "text_cfg": {}}
_VISION = {
    "layers": 12,
    "width": 768,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "patch_size": 16,
    "image_size": 224,
}
_TEXT = {"layers": 12, "width": 512, "heads": 8, "mlp_ratio": 4.0, "context_length": 77, "vocab_size": 49408}
# What else their settings may say, with the one value that is implemented.
_FIXED = {
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "embed_cls": False,
    "no_causal_mask": False,
    "proj_bias": False,
    "proj_type": "linear",
    "block_type": "default",
}
# What changes nothing: training, further outputs, and details of towers that are refused by name.
_IGNORED = (
    *("patch_dropout", "output_tokens", "final_ln_after_pool", "pad_id", "attn_pooler_queries"),
    *("attn_pooler_heads", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop"),
    *("timm_drop_path", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "tokenizer_kwargs"),
)
_PREPROCESS = {
    "mean": clip.PROCESSOR["image_mean"],
    "std": clip.PROCESSOR["image_std"],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def _settings(config) -> tuple[Settings, Settings, Settings]:
    """Of the model, the image encoder and the text encoder; ConfigError for what is not implemented."""
    model = Settings(config.get("model_cfg") or {}, _MODEL)
    vision, text = Settings(model["vision_cfg"], _VISION), Settings(model["text_cfg"], _TEXT)
    _check("vision_cfg", vision, _VISION | {"pool_type": ""})
    _check("text_cfg", text, _TEXT | {"pool_type": "", "eos_id": 0, "hf_tokenizer_name": ""})
    _check("model_cfg", model, _MODEL)
    vision.expect("pool_type", "tok")
    text.expect("pool_type", "argmax", "eos")
    if isinstance(vision["layers"], list):
        raise ConfigError("weights: vision_cfg.layers is a list, of a ResNet; expected the depth of a ViT")
    if text.get("hf_tokenizer_name") and text.get("pool_type") != "eos":
        raise ConfigError(
            f"weights: text_cfg.hf_tokenizer_name is '{text['hf_tokenizer_name']}' with pool_type 'argmax', "
            "whose largest id is not the end of the text; expected pool_type 'eos' with its eos_id"
        )
    return model, vision, text


def _check(name, given, known):
    for key, value in given.items():
        if key in known or key in _IGNORED:
            continue
        expected = _FIXED.get(key)
        if value != expected and value not in (None, False):
            said = f"expected {expected!r}" if key in _FIXED else "expected none"
            raise ConfigError(f"weights: {name}.{key} is {value!r}, which is not implemented; {said}")


def section(config, keys):
    """Both encoders, their projections into the shared space, and the scale."""
    del keys
    model, vision, text = _settings(config)
    activation = "quick_gelu" if model["quick_gelu"] else "gelu"
    image_encoder = {
        "type": "vit",
        **_sizes(vision, vision["width"] // vision["head_width"], activation),
        **vit.patches(vision),
        "patch_bias": False,
        "pre_norm": True,
        "final_norm": "pooled",
    }
    # The end of the text is pooled: the largest id there is, or the one that is named.
    end = text.get("eos_id", 2) if text.get("pool_type") == "eos" else text["vocab_size"] - 1
    text_encoder = {
        "type": "text_transformer",
        **_sizes(text, text["heads"], activation),
        "vocab_size": text["vocab_size"],
        "max_length": text["context_length"],
        "causal": True,
        "pooling": "eos",
        "eos_id": end,
    }
    heads = {
        f"{stream}_embedding": {"type": "projection", "reads": stream, "width": model["embed_dim"]}
        for stream in ("image", "text")
    }
    heads["scale"] = {"type": "learned_scale"}
    return two_towers.model_section({"text": text_encoder, "image": image_encoder}, heads)


def _sizes(given, heads, activation):
    return {
        "variant": "custom",
        "width": given["width"],
        "depth": given["layers"],
        "heads": heads,
        "mlp_width": int(given["width"] * given["mlp_ratio"]),
        "activation": activation,
        "eps": 1e-5,
    }


def entries(section):
    """Every tensor."""
    image, text = (section["streams"][name]["encoder"] for name in ("image", "text"))
    tokens = ("visual.class_embedding", "visual.positional_embedding")
    return [
        *class_and_positions(tokens, "image_encoder", clip.POSITIONS),
        *conv("visual.conv1", "image_encoder/patch", bias=False),
        *norm("visual.ln_pre", "image_encoder/embedding_norm"),
        *_blocks("visual.transformer.resblocks", "image_encoder", image["depth"]),
        *norm("visual.ln_post", "image_encoder/norm"),
        *same("visual.proj", "image_embedding_head/embedding/kernel"),
        *same("token_embedding.weight", "text_encoder/embedding/embedding"),
        *same("positional_embedding", "text_encoder/positions/table"),
        *_blocks("transformer.resblocks", "text_encoder", text["depth"]),
        *norm("ln_final", "text_encoder/norm"),
        *same("text_projection", "text_embedding_head/embedding/kernel"),
        *same("logit_scale", "scale_head/log_scale", ()),
    ]


def _blocks(prefix, path, depth):
    found = []
    for i in range(depth):
        theirs, ours = f"{prefix}.{i}", f"{path}/blocks_{i}"
        found += [
            *norm(f"{theirs}.ln_1", f"{ours}/attention_norm"),
            *fused_qkv(f"{theirs}.attn.in_proj_", f"{ours}/attention"),
            *dense(f"{theirs}.attn.out_proj", f"{ours}/attention/out", inputs=2),
            *norm(f"{theirs}.ln_2", f"{ours}/mlp_norm"),
            *dense(f"{theirs}.mlp.c_fc", f"{ours}/mlp/up"),
            *dense(f"{theirs}.mlp.c_proj", f"{ours}/mlp/down"),
        ]
    return found


def inputs(config):
    """An image of the size the positions are for, a text of four tokens."""
    _, vision, text = _settings(config)
    return two_towers.image_and_text_inputs({"image": vision, "text": text})


def transforms(config, settings):
    """Their preprocessing for evaluation; transparency, which theirs drops, is laid on white here."""
    _, vision, text = _settings(config)
    given = Settings(config.get("preprocess_cfg") or {}, _PREPROCESS)
    given.expect("resize_mode", "shortest", "squash")
    given.expect("interpolation", "bicubic", "bilinear", "random")
    resampler = "bilinear" if given["interpolation"] == "bilinear" else "bicubic"
    size = vision.side("image_size")
    if given["resize_mode"] == "squash":
        shaped = [{"type": "resize", "size": size, "resampler": resampler}]
    else:
        shaped = [
            {"type": "resize_short_side", "size": size, "resampler": resampler},
            {"type": "center_crop", "size": size},
        ]
    mean, std = ([float(x) for x in given[key]] for key in ("mean", "std"))
    return {
        "image": [{"type": "decode_image"}, *shaped, {"type": "normalise", "mean": mean, "std": std}],
        "text": text_transforms(settings, text["context_length"]),
    }


# A text encoder may be a module of its own.
canonical = canonical_names("text.", unused_ends=("attn_mask",))
FAMILY = Family(
    ("open_clip",), section, entries, inputs, clip.export, transforms, canonical, written_as="clip"
)
