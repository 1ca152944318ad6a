"""The sizes of published models that docs/models.md lists. A new one is a line in `MODELS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Published(NamedTuple):
    """A size of a family.

    Attributes:
      family: its name in `FAMILIES`.
      name: of the size.
      source: a checkpoint of it on the Hugging Face hub.
      config: what its config.json says otherwise than the family's defaults.
      inputs: stream -> shape of one example, where it is not what `Family.inputs` says.
      keys: tensors that it has and others may not.
      example: a config that trains it, under configs/.
    """

    family: str
    name: str
    source: str
    config: Mapping[str, Any] = {}
    inputs: Mapping[str, tuple[int, ...]] = {}
    keys: frozenset[str] = frozenset()
    example: str = ""


def _tower(width, mlp, depth, heads, **more):
    sizes = {"hidden_size": width, "intermediate_size": mlp}
    return {**sizes, "num_hidden_layers": depth, "num_attention_heads": heads, **more}


_PROJECTIONS = frozenset({"visual_projection.weight", "text_projection.weight"})
_B, _L, _H = _tower(768, 3072, 12, 12), _tower(1024, 4096, 24, 16), _tower(1280, 5120, 32, 16)
_SO = _tower(1152, 4304, 27, 16)
_IMAGE = {"image": (224, 224, 3)}
_CLIP_L = {
    "projection_dim": 768,
    "text_config": _tower(768, 3072, 12, 12, projection_dim=768),
    "vision_config": {**_L, "patch_size": 14, "projection_dim": 768},
}
_OPEN_H = {
    "embed_dim": 1024,
    "vision_cfg": {"width": 1280, "layers": 32, "head_width": 80, "patch_size": 14},
    "text_cfg": {"width": 1024, "layers": 24, "heads": 16},
}
_MINILM = {"pooling": "mean", "normalise": True, "max_length": 256}


def _clip(name, source, config, example="", text=77):
    return Published(
        "clip",
        name,
        source,
        config,
        {"text": (text,)},
        _PROJECTIONS,
        example and f"clip.py:img={example}",
    )


def _siglip(name, source, vision, text=None, example=""):
    config = {"vision_config": vision, "text_config": text or {}}
    return Published(
        "siglip", name, source, config, {"text": (64,)}, example=example and f"siglip.py:img={example}"
    )


def _naflex(name, source, vision, text):
    config = {"vision_config": vision, "text_config": {**text, "vocab_size": 256000}}
    return Published("siglip2", name, source, config, {"text": (64,)})


def _open_clip(name, source, config):
    return Published("open_clip", name, source, {"model_cfg": config}, {"text": (77,)})


def _text(family, name, source, config, example=""):
    pooled = frozenset() if "sentence" in config else frozenset({"pooler.dense.weight"})
    return Published(family, name, source, config, {"text": (128,)}, pooled, example)


def _image(family, name, source, config, example=""):
    return Published(family, name, source, config, _IMAGE, example=example)


def _whisper(name, width, depth, heads, **more):
    sizes = {"d_model": width, "encoder_layers": depth, "encoder_attention_heads": heads}
    config = {**sizes, "encoder_ffn_dim": 4 * width, **more}
    return Published("whisper", f"{name}, encoder", f"openai/whisper-{name}", config)


def _resnet(depth, depths, basic=False):
    widths = {"hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"} if basic else {}
    example = "resnet50_bert_concat.py:size=full" if depth == 50 else ""
    return _image("resnet", str(depth), f"microsoft/resnet-{depth}", {"depths": depths, **widths}, example)


def _convnext(name, first, middle):
    config = {"hidden_sizes": [first * 2**i for i in range(4)], "depths": [3, 3, middle, 3]}
    return _image("convnext", name[0].upper(), f"facebook/convnext-{name}-224", config)


MODELS = (
    _clip("ViT-B/32", "openai/clip-vit-base-patch32", {}, "B/32"),
    _clip("ViT-B/16", "openai/clip-vit-base-patch16", {"vision_config": {"patch_size": 16}}, "B/16"),
    _clip("ViT-L/14", "openai/clip-vit-large-patch14", _CLIP_L, "L/14"),
    _open_clip("ViT-B-32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", {"vision_cfg": {"patch_size": 32}}),
    _open_clip("ViT-H-14", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", _OPEN_H),
    _siglip("B/16", "google/siglip-base-patch16-224", {}, example="B/16"),
    _siglip("L/16 at 256", "google/siglip-large-patch16-256", {**_L, "image_size": 256}, _L, "L/16"),
    _siglip("So400m/14", "google/siglip-so400m-patch14-224", {**_SO, "patch_size": 14}, _SO, "So400m/14"),
    _siglip(
        "So400m/14 at 384",
        "google/siglip-so400m-patch14-384",
        {**_SO, "patch_size": 14, "image_size": 384},
        _SO,
    ),
    _naflex("B/16", "google/siglip2-base-patch16-naflex", _B, _B),
    _naflex("So400m/16", "google/siglip2-so400m-patch16-naflex", _SO, _SO),
    _image("vit", "B/16", "google/vit-base-patch16-224", {}),
    _image("vit", "L/16", "google/vit-large-patch16-224", _L),
    _image("vit", "H/14", "google/vit-huge-patch14-224-in21k", {**_H, "patch_size": 14}),
    _image("vit_mae", "B/16", "facebook/vit-mae-base", {}),
    _image("vit_mae", "L/16", "facebook/vit-mae-large", _L),
    _image("vit_mae", "H/14", "facebook/vit-mae-huge", {**_H, "patch_size": 14}),
    _image("dinov2", "S/14", "facebook/dinov2-small", {**_tower(384, 0, 12, 6), "image_size": 518}),
    _image("dinov2", "B/14", "facebook/dinov2-base", {**_B, "image_size": 518}),
    _image("dinov2", "L/14", "facebook/dinov2-large", {**_L, "image_size": 518}),
    _resnet(18, [2, 2, 2, 2], basic=True),
    _resnet(34, [3, 4, 6, 3], basic=True),
    _resnet(50, [3, 4, 6, 3]),
    _resnet(101, [3, 4, 23, 3]),
    _resnet(152, [3, 8, 36, 3]),
    _convnext("tiny", 96, 9),
    _convnext("small", 96, 27),
    _convnext("base", 128, 27),
    _convnext("large", 192, 27),
    _text("bert", "base", "google-bert/bert-base-uncased", {}, "resnet50_bert_concat.py:size=full"),
    _text("bert", "large", "google-bert/bert-large-uncased", _L),
    _text(
        "bert",
        "MiniLM-L6",
        "sentence-transformers/all-MiniLM-L6-v2",
        {**_tower(384, 1536, 6, 12), "sentence": _MINILM},
        "lit.py",
    ),
    _text("roberta", "base", "FacebookAI/roberta-base", {}),
    _text("roberta", "large", "FacebookAI/roberta-large", _L),
    _text("roberta", "XLM base", "FacebookAI/xlm-roberta-base", {"vocab_size": 250002}),
    Published("ast", "B", "MIT/ast-finetuned-audioset-10-10-0.4593"),
    Published("clap", "HTSAT, RoBERTa", "laion/clap-htsat-unfused", {}, {"audio": (1001, 64), "text": (77,)}),
    _whisper("tiny", 384, 4, 6),
    _whisper("base", 512, 6, 8),
    _whisper("small", 768, 12, 12),
    _whisper("medium", 1024, 24, 16),
    _whisper("large-v3", 1280, 32, 20, num_mel_bins=128),
    Published("wav2vec2", "base, 10 s", "facebook/wav2vec2-base", {}, {"audio": (160000,)}),
    Published(
        "wav2vec2",
        "large, 10 s",
        "facebook/wav2vec2-large-lv60",
        {**_L, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True},
        {"audio": (160000,)},
    ),
    Published("videomae", "B/16, 16 frames", "MCG-NJU/videomae-base"),
    Published("videomae", "L/16, 16 frames", "MCG-NJU/videomae-large", _L),
    Published("vivit", "B/16x2, 32 frames", "google/vivit-b-16x2-kinetics400"),
    Published("timesformer", "B/16, 8 frames", "facebook/timesformer-base-finetuned-k400"),
)
