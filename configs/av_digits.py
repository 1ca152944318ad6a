"""Written and spoken digits: what fusing two modalities gives, and what is left when one fails.

    ./launch.sh train --config=configs/av_digits.py:fusion=concat

A CNN reads an MNIST image, a one-dimensional CNN the MFCCs of a spoken digit, and a classifier tells
the digit. Argument `fusion`: one of `FUSIONS` below, or a late fusion, a classifier per stream whose
decisions are combined (`late` averages probabilities, `late_weighted` with learned weights,
`late_product` multiplies); `image` and `audio` train on that stream alone. Encoders and training are
the same for all; `encoders=transformer` takes transformers for the CNNs, which `bottleneck` and
`gated_cross_attention` need. `./launch.sh reproduce av_digits` and `fusions` make tables of them.

In training each stream is drawn to be hidden with probability 0.25, and where both are, one stays
(modality dropout, as in ModDrop, Neverova et al. 2016, arXiv 1501.00102), so that the model answers
from either. The corruptions below are never seen in training; their severities were chosen on the
validation split so that each modality alone suffers clearly and stays well above chance.
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax.errors import ConfigError
from mmjax.sweeps.space import choice, log_uniform, uniform

STREAMS = ["image", "audio"]
WIDTH = 64
FRAMES = 96  # the longest utterance has 92
DROP_RATE = 0.25

IMAGE_CORRUPTION = [
    {"type": "gaussian_noise", "std": 0.25},  # of the range from black to white
    {"type": "occlude", "fraction": 0.15, "value": 0},
]
AUDIO_CORRUPTION = [
    {"type": "gaussian_noise", "std": 1.0},  # of a coefficient's own standard deviation
    {"type": "drop_frames", "fraction": 0.2},
]

# What differs from a fusion's defaults: the width, and few layers, for small encoders.
FUSIONS = {
    "concat": {"width": WIDTH},
    "gated": {"width": WIDTH},
    "film": {"width": WIDTH, "depth": 1},
    "tensor": {"width": WIDTH, "stream_width": 16},
    "low_rank": {"width": WIDTH},
    "bilinear": {"width": WIDTH},
    "co_attention": {"width": WIDTH, "depth": 1, "heads": 4},
    "merged_attention": {"width": WIDTH, "depth": 2, "heads": 4},
    "cross_attention": {"width": WIDTH, "depth": 2, "heads": 4, "query": "image"},
    "perceiver_resampler": {"width": WIDTH, "depth": 2, "heads": 4, "queries": 8},
    "q_former": {"width": WIDTH, "depth": 2, "heads": 4, "queries": 8, "text": "audio"},
    "bottleneck": {"bottlenecks": 4, "fusion_layer": 1},
    "gated_cross_attention": {"query": "image", "heads": 4},
}
LATE = {
    "late": {},
    "late_weighted": {"combine": "weighted_probability"},
    "late_product": {"combine": "product"},
}

_TRANSFORMER = {"variant": "custom", "width": WIDTH, "depth": 3, "heads": 4}
ENCODERS = {
    "cnn": {
        "image": {"type": "cnn", "widths": [16, 32, WIDTH, WIDTH]},
        "audio": {"type": "audio_cnn", "widths": [32, WIDTH, WIDTH]},
    },
    "transformer": {
        "image": {"type": "vit", "patch_size": 7, "pooling": "mean", **_TRANSFORMER},
        "audio": {"type": "audio_transformer", "frames_per_token": 4, **_TRANSFORMER},
    },
}


def get_config(arg: str = "") -> ConfigDict:
    args = config_lib.arguments(arg, fusion="concat", encoders="cnn")
    if args.encoders not in ENCODERS:
        raise ConfigError(f"argument encoders: got '{args.encoders}', expected one of: {', '.join(ENCODERS)}")
    encoders = ENCODERS[args.encoders]
    streams = [args.fusion] if args.fusion in STREAMS else STREAMS
    fusion, head = _fusion_and_head(args.fusion, streams)
    image, image_corrupted = _image_transforms([]), _image_transforms(IMAGE_CORRUPTION)
    audio, audio_corrupted = _audio_transforms([]), _audio_transforms(AUDIO_CORRUPTION)

    test = {"type": "av_digits", "split": "test"}
    accuracy = {"type": "classification", "head": "digit", "label": "digit_id"}
    config = {
        "batch_size": 64,
        "total_epochs": 12,
        "data": {
            "train": {"type": "av_digits", "split": "train"},
            "eval": {
                "validation": {"dataset": {**test, "split": "validation"}},
                "test": {"dataset": test},
                "degraded": {
                    "dataset": test,
                    "streams": {"image": image_corrupted, "audio": audio_corrupted},
                },
                "image_missing": {"dataset": test, "drop": ["image"]},
                "audio_missing": {"dataset": test, "drop": ["audio"]},
            },
            "streams": {
                "image": {"features": ["image"], "train": image, "eval": image, "drop_rate": DROP_RATE},
                "audio": {"features": ["mfcc"], "train": audio, "eval": audio, "drop_rate": DROP_RATE},
            },
            "labels": {"digit_id": "label"},
        },
        "model": {
            "streams": {
                "image": {"kind": "image", "encoder": encoders["image"]},
                "audio": {"kind": "audio", "encoder": encoders["audio"]},
            },
            "fusion": fusion,
            "heads": {"digit": head},
        },
        "objectives": {"digit": {"type": "cross_entropy", "logits": "digit", "label": "digit_id"}},
        "optimizer": {
            "method": {"type": "adamw", "weight_decay": 0.05},
            "schedule": {"type": "cosine", "peak": 3e-3, "warmup_percent": 5.0},
            "clip_norm": 1.0,
        },
        "evals": {
            "progress": {**accuracy, "data": "validation", "prefix": "validation", "every_percent": 25.0},
            "test": {**accuracy, "data": "test"},
            "degraded": {**accuracy, "data": "degraded", "prefix": "degraded"},
            "image_missing": {**accuracy, "data": "image_missing", "prefix": "image_missing"},
            "audio_missing": {**accuracy, "data": "audio_missing", "prefix": "audio_missing"},
        },
    }
    for other in set(STREAMS) - set(streams):
        _leave_out(other, config)
    return ConfigDict(config)


def sweep_fusion():
    """`./launch.sh sweep --config=configs/av_digits.py --sweep=fusion,seed --seeds=0,1,2 --metric=...`"""
    for name in ("concat", "gated", "film"):
        yield {"model.fusion": {"type": name, **FUSIONS[name]}}


def search_space():
    """`./launch.sh sweep --config=configs/av_digits.py --search=tpe --trials=20 --metric=...`"""
    return {
        "optimizer.schedule.peak": log_uniform(1e-4, 3e-2),
        "optimizer.method.weight_decay": uniform(0.0, 0.2),
        "data.streams.image.drop_rate": uniform(0.0, 0.5),
        "batch_size": choice([32, 64, 128]),
    }


def _image_transforms(corruption: list[dict]) -> list[dict]:
    """Pixels are corrupted as uint8, where noise is clipped as a camera clips it."""
    normalise = {"type": "normalise", "mean": [0.5], "std": [0.5]}
    return [{"type": "decode_image", "channels": 1}, *corruption, normalise]


def _audio_transforms(corruption: list[dict]) -> list[dict]:
    """MFCCs are corrupted after standardising, so that severity means the same for each coefficient."""
    return [{"type": "standardise_frames"}, *corruption, {"type": "pad", "length": FRAMES}]


def _fusion_and_head(name: str, streams: list[str]) -> tuple[dict | None, dict]:
    classifier = {"type": "classifier", "label": "digit_id"}
    if len(streams) == 1:
        return None, {**classifier, "reads": name}
    if name in FUSIONS:
        return {"type": name, **FUSIONS[name]}, classifier
    if name in LATE:
        return None, {"type": "late_classifier", "label": "digit_id", "reads": streams, **LATE[name]}
    expected = ", ".join([*FUSIONS, *LATE, *STREAMS])
    raise ConfigError(f"argument fusion: got '{name}', expected one of: {expected}")


def _leave_out(stream: str, config: dict) -> None:
    """Takes a stream out of a config; the evaluation without the stream that is left goes too."""
    data, model = config["data"], config["model"]
    del data["streams"][stream], model["streams"][stream]
    del data["eval"]["degraded"]["streams"][stream]
    data["eval"][f"{stream}_missing"]["drop"] = []
    (left,) = data["streams"]
    del data["eval"][f"{left}_missing"], config["evals"][f"{left}_missing"]
