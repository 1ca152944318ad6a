"""Emoji and what they are called: retrieval and classification through one model, on two CPU cores.

    ./launch.sh train

1,618 drawings are too few to learn to see or to read from, so both encoders are linear: one in layout,
colours and edges of the drawing (`image_descriptors`), one in the words of the caption (`embedding_bag`):
the English name, keywords, and the name in five more languages. Their embeddings are contrasted (InfoNCE)
before fusion, and each tells the Unicode subgroup; co-attention fuses image and text, and a classifier on
the fused features tells the group. The test set holds 285 base emoji of concepts never seen in training.
Some five minutes on two cores. `:only=image` or `:only=text` classifies groups by one of the two
(experiments/emoji_groups).
"""

from ml_collections import ConfigDict

from mmjax import config as config_lib

CAPTION = ["name", "keywords", "names.de", "names.fr", "names.es", "names.it", "names.pt"]


def get_config(text: str = "") -> ConfigDict:
    args = config_lib.arguments(text, res=64, width=128, epochs=30, only="")
    image, caption, name = image_transforms(args.res), caption_transforms(), name_transforms()

    def emoji(split):
        return {"type": "openmoji", "split": split, "base_only": True}

    retrieval = {
        "type": "retrieval",
        "a": "image_embedding",
        "b": "text_embedding",
        "a_name": "image",
        "b_name": "text",
        "streams": ["image", "text"],
        "positives": ["pixel_id"],  # a territory and its country share a drawing: both names are right
        "b_text": "name",
    }
    bag_of_words = {"type": "bag_of_words_retrieval", "positives": ["pixel_id"]}

    config = ConfigDict(
        {
            "batch_size": 64,
            "total_epochs": args.epochs,
            "data": {
                "train": emoji("train+validation"),  # nothing is chosen by the validation split here
                "eval": {
                    "test": {"dataset": emoji("test")},
                    "test_names": {"dataset": emoji("test"), "streams": {"text": name}},
                },
                "streams": {
                    "image": {"features": ["image"], "train": image, "eval": image},
                    "text": {"features": CAPTION, "train": caption["train"], "eval": caption["eval"]},
                },
                "labels": {"group_id": "group", "subgroup_id": "subgroup", "pixel_id": "pixel_id"},
                "tokenizers": {"default": {"type": "words", "features": CAPTION}},
            },
            "model": {
                "streams": {
                    "image": {
                        "kind": "image",
                        "encoder": {"type": "image_descriptors", "width": 2 * args.width, "dropout": 0.2},
                    },
                    "text": {
                        "kind": "text",
                        "encoder": {
                            "type": "embedding_bag",
                            "width": args.width,
                            "mlp_width": 0,
                            "token_dropout": 0.3,
                            "dropout": 0.2,
                        },
                    },
                },
                "fusion": {
                    "type": "co_attention",
                    "width": args.width,
                    "depth": 1,
                    "heads": 4,
                    "mlp_width": 2 * args.width,
                    "dropout": 0.2,
                },
                "heads": {
                    "image_embedding": {"type": "projection", "reads": "image", "width": args.width},
                    "text_embedding": {"type": "projection", "reads": "text", "width": args.width},
                    "scale": {"type": "learned_scale", "initial": 14.0},
                    "group": {"type": "classifier", "label": "group_id"},
                    "image_subgroup": {"type": "classifier", "reads": "image", "label": "subgroup_id"},
                    "text_subgroup": {"type": "classifier", "reads": "text", "label": "subgroup_id"},
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
                "group": {
                    "type": "cross_entropy",
                    "logits": "group",
                    "label": "group_id",
                    "label_smoothing": 0.1,
                    "weight": 0.5,
                },
                **{
                    head: {"type": "cross_entropy", "logits": head, "label": "subgroup_id", "weight": 0.75}
                    for head in ("image_subgroup", "text_subgroup")
                },
            },
            "optimizer": {
                "method": {"type": "adamw", "b2": 0.98, "weight_decay": 0.1},
                "schedule": {"type": "cosine", "peak": 2e-3, "warmup_percent": 10.0},
                # Most words are in few batches, and their vectors start near zero: these take larger steps.
                "multipliers": [{"pattern": "text_encoder/embed/.*", "factor": 5.0}],
                "clip_norm": 1.0,
                "ema": 0.98,
            },
            "checkpoint": {"every_percent": 20.0},
            "evals": {
                "retrieval": {**retrieval, "data": "test", "every_percent": 20.0},
                "bag_of_words": {**bag_of_words, "data": "test", "text_features": CAPTION},
                "name_retrieval": {
                    **retrieval,
                    "data": "test_names",
                    "prefix": "name_only",
                    "gallery_queries": 0,
                },
                "name_bag_of_words": {
                    **bag_of_words,
                    "data": "test_names",
                    "prefix": "name_only",
                    "text_features": ["name"],
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
    return one_stream(config, args.only) if args.only else config


def one_stream(config: ConfigDict, stream: str) -> ConfigDict:
    """The same model and training with an image or a text alone: what fusion is compared with."""
    other = {"image": "text", "text": "image"}[stream]
    for section in (config.model.streams, config.data.streams):
        del section[other]
    for head in (f"{other}_embedding", f"{other}_subgroup", f"{stream}_embedding", "scale"):
        del config.model.heads[head]
    for objective in ("contrastive", f"{other}_subgroup"):
        del config.objectives[objective]
    del config.data.eval.test_names
    config.model.fusion = None
    config.model.heads.group.reads = stream
    config.evals = {"group": config.evals.group}
    if stream == "image":
        config.data.tokenizers = {}
        config.optimizer.multipliers = []
    return config


def image_transforms(res: int) -> list[dict]:
    """Not augmented: where things are, left and right, and colours tell emoji apart."""
    normalise = {"type": "normalise", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    return [{"type": "decode_image"}, {"type": "resize", "size": res}, normalise]


def caption_transforms() -> dict[str, list[dict]]:
    """All of the caption; in training some of its parts."""
    tokens = [{"type": "tokenize", "max_length": 48}, {"type": "pad", "length": 48}]
    return {
        "train": [{"type": "join_texts", "keep": 0.5}, *tokens],
        "eval": [{"type": "join_texts"}, *tokens],
    }


def name_transforms() -> list[dict]:
    """The English name alone."""
    return [{"type": "first"}, {"type": "tokenize", "max_length": 48}, {"type": "pad", "length": 48}]
