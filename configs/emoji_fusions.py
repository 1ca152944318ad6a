"""Emoji, drawn and described: which Unicode group, by any fusion of the two.

    ./launch.sh train --config=configs/emoji_fusions.py:fusion=merged_attention

A small CNN reads the drawing, a bag of subwords the English name and keywords, and a classifier on
what is fused tells the group (one of 10) of emoji whose concepts training never shows. Argument
`fusion`: one of `FUSIONS` below, or `late` (a classifier per stream, their probabilities averaged);
`image` and `text` train on that stream alone. Encoders and training are the same for all. In training
each stream is hidden with probability 0.25, never both. `./launch.sh reproduce fusions_emoji` makes
the table.
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib
from mmjax import presets
from mmjax.errors import ConfigError

STREAMS = ["image", "text"]
WIDTH = 64
TOKENS = 24
DROP_RATE = 0.25
CAPTION = ["name", "keywords"]
ENCODERS = {
    "image": {"type": "cnn", "widths": [16, 32, WIDTH]},
    "text": {"type": "embedding_bag", "width": WIDTH, "token_dropout": 0.3},
}

# What differs from a fusion's defaults: the width, and few layers, for small encoders.
FUSIONS = {
    "concat": {},
    "gated": {},
    "film": {"depth": 1},
    "tensor": {"stream_width": 16},
    "low_rank": {},
    "bilinear": {},
    "co_attention": {"depth": 1, "heads": 4},
    "merged_attention": {"depth": 1, "heads": 4},
    "cross_attention": {"depth": 1, "heads": 4, "query": "text"},
    "perceiver_resampler": {"depth": 1, "heads": 4, "queries": 8},
    "q_former": {"depth": 2, "heads": 4, "queries": 8, "text": "text"},
}


def get_config(text: str = "") -> ConfigDict:
    args = config_lib.arguments(text, fusion="merged_attention", epochs=10)
    streams = [args.fusion] if args.fusion in STREAMS else STREAMS
    fusion, head = _fusion_and_head(args.fusion, streams)
    test = {"type": "openmoji", "split": "test", "base_only": True}
    missing = streams if len(streams) > 1 else []  # a stream alone is never hidden
    accuracy = {"type": "classification", "head": "group", "label": "group_id"}
    images, texts = presets.images(32, presets.HALF, [0.8, 1.0]), _texts()
    data = {
        "image": {"features": ["image"], **images, "drop_rate": DROP_RATE},
        "text": {"features": CAPTION, **texts, "drop_rate": DROP_RATE},
    }
    config = {
        "batch_size": 64,
        "total_epochs": args.epochs,
        "data": {
            "train": {**test, "split": "train+validation"},  # nothing is chosen by the validation split
            "eval": {
                "test": {"dataset": test},
                **{f"{stream}_missing": {"dataset": test, "drop": [stream]} for stream in missing},
            },
            "streams": {stream: data[stream] for stream in streams},
            "labels": {"group_id": "group"},
        },
        "model": {
            "streams": {stream: {"kind": stream, "encoder": ENCODERS[stream]} for stream in streams},
            "fusion": fusion,
            "heads": {"group": head},
        },
        "objectives": {
            "group": {
                "type": "cross_entropy",
                "logits": "group",
                "label": "group_id",
                "label_smoothing": 0.1,
            }
        },
        "optimizer": {
            "method": {"type": "adamw", "b2": 0.98, "weight_decay": 0.1},
            "schedule": {"type": "cosine", "peak": 2e-3, "warmup_percent": 10.0},
            "clip_norm": 1.0,
        },
        "evals": {
            "test": {**accuracy, "data": "test"},
            **{
                f"{stream}_missing": {
                    **accuracy,
                    "data": f"{stream}_missing",
                    "prefix": f"{stream}_missing",
                }
                for stream in missing
            },
        },
    }
    if "text" in streams:
        words = {"type": "wordpiece", "features": CAPTION, "vocab_size": 12000, "min_frequency": 1}
        config["data"]["tokenizers"] = {"default": words}
    return ConfigDict(config)


def _texts() -> dict[str, list[dict]]:
    """The name and the keywords; in training some of them."""
    chain = presets.tokens(TOKENS)
    return {
        "train": [{"type": "join_texts", "keep": 0.5}, *chain["train"]],
        "eval": [{"type": "join_texts"}, *chain["eval"]],
    }


def _fusion_and_head(name: str, streams: list[str]) -> tuple[dict | None, dict]:
    classifier = {"type": "classifier", "label": "group_id"}
    if len(streams) == 1:
        return None, {**classifier, "reads": name}
    if name in FUSIONS:
        return {"type": name, "width": WIDTH, **FUSIONS[name]}, classifier
    if name == "late":
        return None, {"type": "late_classifier", "label": "group_id", "reads": streams}
    expected = ", ".join([*FUSIONS, "late", *STREAMS])
    raise ConfigError(f"argument fusion: got '{name}', expected one of: {expected}")
