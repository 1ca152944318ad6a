"""MBT: two transformers that talk through a few bottleneck tokens (Nagrani et al. 2021, arXiv:2107.00135).

    ./launch.sh train --config=configs/mbt.py
    ./launch.sh train --config=configs/mbt.py:size=full,data=clips.jsonl,labels=527

By default small transformers over an MNIST image and the MFCCs of a spoken digit tell the digit (av_digits,
any machine). `size=full` is the paper's audio-visual model (section 4.2): ViT-B/16 on one RGB frame and
on a spectrogram of 8 seconds, and four bottleneck tokens from the ninth block on. Its data is a manifest with
columns `image`, `audio`, `labels` (any number of them, separated by '|', out of `labels` classes) and
`split`, as AudioSet's. The image encoder starts from published ImageNet-21k weights. The paper starts the
encoder of the spectrogram from them too, and reads eight frames per clip; here it starts fresh, and reads
one frame. `streams=image` and `streams=audio` are its models of one stream.
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax import presets
from mmjax.errors import ConfigError

VIT_B16 = "hf:google/vit-base-patch16-224-in21k"


def get_config(text: str = "") -> ConfigDict:
    args = config_lib.arguments(
        text,
        size="tiny",
        data="",
        bottlenecks=4,
        fusion_layer=-1,
        labels=527,
        batch=64,
        epochs=10,
        streams="both",
    )
    if args.size not in ("tiny", "full"):
        raise ConfigError(f"config argument size: got '{args.size}', expected tiny or full")
    if args.size == "full" and not args.data:
        raise ConfigError("config argument data: is missing; size=full needs a manifest of clips")
    if args.streams not in ("both", "image", "audio"):
        raise ConfigError(f"config argument streams: got '{args.streams}', expected both, image or audio")
    config = full(args) if args.size == "full" else tiny()
    if args.fusion_layer >= 0:
        config["model"]["fusion"]["fusion_layer"] = args.fusion_layer
    config["model"]["fusion"] |= {"type": "bottleneck", "bottlenecks": args.bottlenecks}
    if args.streams != "both":
        keep_one(config, args.streams)
    return ConfigDict({"batch_size": args.batch, "total_epochs": args.epochs, **config})


def keep_one(config: dict, stream: str) -> None:
    """Leaves the other stream and the fusion out."""
    for section in (config["data"], config["model"]):
        section["streams"] = {stream: section["streams"][stream]}
    config["model"]["fusion"] = None
    for head in config["model"]["heads"].values():
        head["reads"] = stream
    for transform in config["data"].get("batch_transforms", []):
        transform |= {"stream": stream, "also": []}
    missing = [name for name, part in config["data"]["eval"].items() if part.get("drop")]
    for name in missing:
        del config["data"]["eval"][name], config["evals"][name]


def tiny() -> dict:
    """Written and spoken digits."""
    size = {"variant": "custom", "width": 64, "depth": 4, "heads": 4, "dropout": 0.1}
    pixels = [{"type": "decode_image", "channels": 1}, {"type": "normalise", "mean": [0.5], "std": [0.5]}]
    frames = [{"type": "standardise_frames"}, {"type": "pad", "length": 96}]
    test = {"type": "av_digits", "split": "test"}
    return {
        "data": {
            "train": {"type": "av_digits", "split": "train"},
            "eval": {
                "test": {"dataset": test},
                "image_missing": {"dataset": test, "drop": ["image"]},
                "audio_missing": {"dataset": test, "drop": ["audio"]},
            },
            "streams": {
                "image": {"features": ["image"], "train": pixels, "eval": pixels, "drop_rate": 0.25},
                "audio": {"features": ["mfcc"], "train": frames, "eval": frames, "drop_rate": 0.25},
            },
            "labels": {"digit_id": "label"},
        },
        "model": {
            "streams": {
                "image": {"kind": "image", "encoder": {"type": "vit", **size, "patch_size": 7}},
                "audio": {
                    "kind": "audio",
                    "encoder": {"type": "audio_transformer", **size, "frames_per_token": 4},
                },
            },
            "fusion": {"fusion_layer": 2},
            "heads": {"digit": {"type": "classifier", "label": "digit_id"}},
        },
        "objectives": {"digit": {"type": "cross_entropy", "logits": "digit", "label": "digit_id"}},
        "optimizer": {
            "method": {"type": "adamw", "weight_decay": 0.05},
            "schedule": {"type": "cosine", "peak": 2e-3, "warmup_percent": 10.0},
            "clip_norm": 1.0,
        },
        "evals": {
            name: {
                "type": "classification",
                "data": name,
                "head": "digit",
                "label": "digit_id",
                "prefix": "" if name == "test" else name,
            }
            for name in ("test", "image_missing", "audio_missing")
        },
    }


def full(args) -> dict:
    """A frame and a spectrogram of a clip."""
    sound = [
        {"type": "decode_audio", "rate": 16000, "max_seconds": 30.0},
        {"type": "log_mel", "bins": 128, "window": 400, "hop": 160},
        {"type": "standardise_frames"},
    ]
    length = {"type": "pad", "length": 800}
    heard = [*sound, {"type": "center_crop_frames", "length": 800}, length]
    augmented = [
        *sound,
        {"type": "random_crop_frames", "length": 800},
        {"type": "spec_augment", "frequency_width": 48, "time_width": 192},
        length,
    ]
    image = presets.images(224, presets.HALF, [0.5, 1.0])
    clips = {"type": "manifest", "path": args.data, "multi_labels": ["labels"]}
    vit = {"type": "vit", "variant": "B", "patch_size": 16, "eps": 1e-12, "drop_path": 0.3}
    ast = {
        "type": "spectrogram_transformer",
        "variant": "B",
        "time_stride": 16,
        "frequency_stride": 16,
        "frames": 800,
        "eps": 1e-12,
        "drop_path": 0.3,
    }
    return {
        "data": {
            "train": clips,
            "eval": {"test": {"dataset": {**clips, "split": "test"}}},
            "streams": {
                "image": {"features": ["image"], **image},
                "audio": {"features": ["audio"], "train": augmented, "eval": heard},
            },
            "labels": {"labels": "labels"},
            "batch_transforms": [
                {"type": "mixup", "labels": {"labels": args.labels}, "alpha": 0.3, "also": ["audio"]}
            ],
        },
        "model": {
            "streams": {
                "image": {"kind": "image", "encoder": vit, "init": VIT_B16},
                "audio": {"kind": "audio", "encoder": ast},
            },
            "fusion": {"fusion_layer": 8},
            "heads": {"label": {"type": "classifier", "label": "labels"}},
        },
        "objectives": {
            "label": {"type": "cross_entropy", "logits": "label", "label": "labels", "multi_label": True}
        },
        "optimizer": {
            "method": {"type": "sgd", "momentum": 0.9},
            "schedule": {"type": "cosine", "peak": 0.5, "warmup_epochs": 2.5},
            "clip_norm": 1.0,
        },
        "evals": {
            "label": {
                "type": "classification",
                "data": "test",
                "head": "label",
                "label": "labels",
                "multi_label": True,
            }
        },
        "dtype": "bfloat16",
        "remat": True,
    }
