"""ImageBind: modalities that never meet are bound through images (Girdhar et al. 2023, arXiv:2305.05665).

    ./launch.sh train --config=configs/imagebind.py
    ./launch.sh train --config=configs/imagebind.py:size=full,data=triples.jsonl

Each other modality is contrasted with images only. By default the data is a mixture in which no example
has both a text and a sound: drawings with names (openmoji), and written digits with spoken ones
(av_digits); the evaluation of both pairs is on held-out examples. `size=full` is for a manifest with columns
`image`, `text`, `audio` (a row may lack any) and `split`: image and text encoder are CLIP's published
ones, locked as in the paper (section 3.3), and the audio encoder, a spectrogram transformer, is trained.
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax import presets
from mmjax.errors import ConfigError

CLIP = "hf:openai/clip-vit-base-patch16"
BLOCKS = {"activation": "quick_gelu", "eps": 1e-5}


def get_config(text: str = "") -> ConfigDict:
    args = config_lib.arguments(text, size="tiny", data="", batch=128, epochs=8)
    if args.size not in ("tiny", "full"):
        raise ConfigError(f"config argument size: got '{args.size}', expected tiny or full")
    if args.size == "full" and not args.data:
        raise ConfigError("config argument data: is missing; size=full needs a manifest")
    config = full(args.data) if args.size == "full" else tiny()
    config["objectives"] = {other: contrast(other, config) for other in ("text", "audio")}
    for name in ("image", "text", "audio"):
        width = 512 if args.size == "full" else 128
        head = {"type": "projection", "reads": name, "width": width}
        config["model"].setdefault("heads", {})[f"{name}_embedding"] = head
    # The paper's fixed temperature is per pair; here it is learned per pair.
    config["model"]["heads"] |= {f"{other}_scale": {"type": "learned_scale"} for other in ("text", "audio")}
    config["evals"] = {
        other: {
            "type": "retrieval",
            "data": data,
            "a": "image_embedding",
            "b": f"{other}_embedding",
            "a_name": "image",
            "b_name": other,
            "streams": ["image", other],
            "positives": positives,
            "gallery_queries": 0,
            "every_percent": 50.0,
        }
        for other, data, positives in config.pop("retrieval")
    }
    return ConfigDict({"batch_size": args.batch, "total_epochs": args.epochs, **config})


def contrast(other: str, config: dict) -> dict:
    """InfoNCE between images and `other`, over the examples that have both."""
    return {
        "type": "infonce",
        "a": "image_embedding",
        "b": f"{other}_embedding",
        "streams": ["image", other],
        "scale": f"{other}_scale",
        "positives": {"text": "pixel_id", "audio": "digit_id"}[other] if config["data"]["labels"] else "",
    }


def tiny() -> dict:
    """Drawings with names, and written digits with spoken ones."""
    emoji, digits = {"type": "openmoji", "base_only": True}, {"type": "av_digits"}
    image = [{"type": "decode_image"}, {"type": "resize", "size": 32}]
    image.append({"type": "normalise", "mean": [0.5] * 3, "std": [0.5] * 3})
    text = presets.tokens(24)
    sound = [{"type": "standardise_frames"}, {"type": "pad", "length": 96}]
    caption = ["name", "keywords"]
    return {
        "data": {
            "train": {
                "type": "mixture",
                "sources": [{**emoji, "split": "train"}, {**digits, "split": "train"}],
                "weights": [1.0, 1.0],
            },
            "eval": {
                "emoji": {"dataset": {**emoji, "split": "test"}, "drop": ["audio"]},
                "digits": {"dataset": {**digits, "split": "test"}, "drop": ["text"]},
            },
            "streams": {
                "image": {"features": ["image"], "train": image, "eval": image},
                "text": {
                    "features": caption,
                    "train": [{"type": "join_texts", "keep": 0.5}, *text["train"]],
                    "eval": [{"type": "join_texts"}, *text["eval"]],
                },
                "audio": {"features": ["mfcc"], "train": sound, "eval": sound},
            },
            "labels": {"pixel_id": "pixel_id", "digit_id": "label"},
            "tokenizers": {"default": {"type": "wordpiece", "features": caption, "vocab_size": 6000}},
        },
        "model": {
            "streams": {
                "image": {
                    "kind": "image",
                    "encoder": {"type": "cnn", "widths": [32, 64, 128], "pooling": "grid", "dropout": 0.2},
                },
                "text": {"kind": "text", "encoder": {"type": "embedding_bag", "width": 128, "dropout": 0.2}},
                "audio": {"kind": "audio", "encoder": {"type": "audio_cnn", "widths": [32, 64, 128]}},
            }
        },
        "optimizer": {
            "method": {"type": "adamw", "b2": 0.98, "weight_decay": 0.1},
            "schedule": {"type": "cosine", "peak": 2e-3, "warmup_percent": 10.0},
            "clip_norm": 1.0,
        },
        "retrieval": [("text", "emoji", ["pixel_id"]), ("audio", "digits", ["digit_id"])],
    }


def full(manifest: str) -> dict:
    """Sounds learn to stand where CLIP places the images they came with."""
    rows = {"type": "manifest", "path": manifest}
    sound = [
        {"type": "decode_audio", "rate": 16000, "max_seconds": 2.0},
        {"type": "log_mel", "bins": 128, "window": 400, "hop": 160},
        {"type": "standardise_frames"},
        {"type": "pad", "length": 204},
    ]
    image = {"type": "vit", "variant": "B", "patch_size": 16, **BLOCKS}
    image |= {"pre_norm": True, "patch_bias": False, "final_norm": "pooled"}
    text = {"type": "text_transformer", "variant": "custom", "width": 512, "depth": 12, "heads": 8, **BLOCKS}
    text |= {"causal": True, "max_length": 77, "pooling": "eos", "eos_id": 49407}
    audio = {"type": "spectrogram_transformer", "variant": "B", "frames": 204, "drop_path": 0.1}
    test = {"test": {"dataset": {**rows, "split": "test"}}}
    return {
        "data": {
            "train": rows,
            "eval": test,
            "streams": {
                "image": {"features": ["image"], **presets.images(224, presets.CLIP, [0.5, 1.0])},
                "text": {"features": ["text"], **presets.tokens(77, template=True)},
                "audio": {"features": ["audio"], "train": sound, "eval": sound},
            },
            "labels": {},
            "tokenizers": {"default": {"type": "file", "path": CLIP}},
        },
        "model": {
            "streams": {
                "image": {"kind": "image", "encoder": image, "init": CLIP},
                "text": {"kind": "text", "encoder": text, "init": CLIP},
                "audio": {"kind": "audio", "encoder": audio},
            }
        },
        "optimizer": {
            "method": {"type": "adamw", "b2": 0.95, "weight_decay": 0.2},
            "schedule": {"type": "cosine", "peak": 1.6e-3, "warmup_epochs": 2.0},
            "clip_norm": 1.0,
            "frozen": ["(image|text)_encoder/.*"],
        },
        "dtype": "bfloat16",
        "retrieval": [("text", "test", []), ("audio", "test", [])],
    }
