"""Emoji and their names: retrieval and classification through one model, on two CPU cores.

    ./launch.sh train

A residual CNN reads the drawing, a small transformer the name. Their embeddings are contrasted
(InfoNCE) before fusion; co-attention fuses image and text, and a classifier on the fused features
tells the Unicode group. The test set holds concepts never seen in training.
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib

LANGUAGES = ("en", "de", "fr", "es", "it", "pt")


def get_config(text: str = "") -> ConfigDict:
    args = config_lib.arguments(text, res=48, width=128)

    decode = [{"type": "decode_image"}]
    normalise = [{"type": "normalise", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}]
    crop = {"type": "random_resized_crop", "size": args.res, "scale": [0.5, 1.0]}
    tokens = [{"type": "tokenize", "max_length": 24}, {"type": "pad", "length": 24}]
    names = ["name", "keywords"]

    return ConfigDict(
        {
            "seed": 0,
            "batch_size": 128,
            "total_epochs": 40,
            "data": {
                "train": {"type": "openmoji", "split": "train"},
                "eval": {
                    "validation": {"dataset": {"type": "openmoji", "split": "validation", "base_only": True}},
                    "test": {"dataset": {"type": "openmoji", "split": "test", "base_only": True}},
                },
                "streams": {
                    "image": {
                        "features": ["image"],
                        "train": [*decode, crop, {"type": "random_flip"}, *normalise],
                        "eval": [
                            *decode,
                            {"type": "resize", "size": args.res},
                            *normalise,
                        ],
                    },
                    "text": {
                        "features": ["name"],
                        "train": tokens,
                        "eval": tokens,
                    },
                },
                "labels": {
                    "group_id": "group",
                    "subgroup_id": "subgroup",
                    "pixel_id": "pixel_id",
                    "concept_id": "concept_id",
                },
                "tokenizers": {"default": {"type": "wordpiece", "features": names, "vocab_size": 2000}},
            },
            "model": {
                "streams": {
                    "image": {
                        "kind": "image",
                        "encoder": {"type": "cnn", "widths": [32, 64, 128], "residual": True},
                    },
                    "text": {
                        "kind": "text",
                        "encoder": {"type": "text_transformer", "width": args.width, "depth": 2, "heads": 4},
                    },
                },
                "fusion": {"type": "co_attention", "width": args.width, "depth": 1, "heads": 4},
                "heads": {
                    "image_embedding": {"type": "projection", "reads": "image", "width": args.width},
                    "text_embedding": {"type": "projection", "reads": "text", "width": args.width},
                    "scale": {"type": "learned_scale", "initial": 10.0},
                    "group": {"type": "classifier", "label": "group_id"},
                },
            },
            "objectives": {
                "contrastive": {
                    "type": "infonce",
                    "a": "image_embedding",
                    "b": "text_embedding",
                    "streams": ["image", "text"],
                    "scale": "scale",
                    "positives": "pixel_id",
                },
                "group": {"type": "cross_entropy", "logits": "group", "label": "group_id", "weight": 0.5},
            },
            "optimizer": {
                "method": {"type": "adamw", "b2": 0.98, "weight_decay": 0.1},
                "schedule": {"type": "cosine", "peak": 1e-3, "warmup_percent": 10.0},
                "clip_norm": 1.0,
            },
            "checkpoint": {"every_percent": 20.0},
            "evals": {
                "progress": {
                    "type": "retrieval",
                    "prefix": "validation",
                    "data": "validation",
                    "every_percent": 10.0,
                    "a": "image_embedding",
                    "b": "text_embedding",
                    "a_name": "image",
                    "b_name": "text",
                    "streams": ["image", "text"],
                    "positives": ["pixel_id"],
                    "gallery_queries": 0,
                },
                "retrieval": {
                    "type": "retrieval",
                    "data": "test",
                    "a": "image_embedding",
                    "b": "text_embedding",
                    "a_name": "image",
                    "b_name": "text",
                    "streams": ["image", "text"],
                    "positives": ["pixel_id"],
                    "b_text": "name",
                },
                "bag_of_words": {
                    "type": "bag_of_words_retrieval",
                    "data": "test",
                    "text_feature": "name",
                    "positives": ["pixel_id"],
                },
                "group": {"type": "classification", "data": "test", "head": "group", "label": "group_id"},
                "zero_shot": {
                    "type": "zero_shot",
                    "data": "test",
                    "label": "subgroup_id",
                    "embedding": "image_embedding",
                    "text_embedding": "text_embedding",
                },
            },
        }
    )
